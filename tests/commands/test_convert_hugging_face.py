"""`segda convert` from and to folders of Hugging Face's kind, against transformers' own SegFormer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.segformer.configuration_segformer import SegformerConfig
from transformers.models.segformer.modeling_segformer import (
    SegformerForImageClassification,
    SegformerForSemanticSegmentation,
    SegformerModel,
)

from commands.test_convert import CLASSES, equal, refused
from conftest import small_recipe
from segda.cli.main import main
from segda.commands.convert import convert
from segda.data.labels.spaces import space_named
from segda.errors import SegdaError
from segda.networks.encoder_decoder import EncoderDecoder
from segda.recipes.recipe import Recipe
from segda.run import load_network
from segda.training.assembly import student_of

SMALL = {"hidden_sizes": [16, 32, 64, 96], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 4, 6]}
NETWORK = {"name": "encoder_decoder", "encoder": "tiny", "weights": "scratch", "dropout": 0.1, "drop_path": 0.1}


@pytest.fixture(params=["segformer_256", "segformer"])
def recipe(request, tmp_path) -> Recipe:
    """Of MiT with SegFormer's own decoder, as narrow as of B0 or as wide as of B5."""
    network = NETWORK | {"decoder": request.param}
    return small_recipe(tmp_path / "data").override(f"network={json.dumps(network)}")


def width(recipe: Recipe) -> int:
    return {"segformer_256": 256, "segformer": 768}[recipe.network["decoder"]]


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """Every tensor with values of its own, as after training."""
    torch.manual_seed(6)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and name not in ("mean", "deviation"):
                tensor.copy_(
                    torch.rand(tensor.shape) + 0.5 if "running_var" in name else 0.2 * torch.randn(tensor.shape)
                )
    return model.eval()


def their_model(recipe: Recipe) -> SegformerForSemanticSegmentation:
    return randomised(
        SegformerForSemanticSegmentation(
            SegformerConfig(**SMALL, decoder_hidden_size=width(recipe), num_labels=len(CLASSES))
        )
    )


def with_the_papers_norms(model: SegformerForSemanticSegmentation) -> SegformerForSemanticSegmentation:
    """The library adds 1e-5 to every variance; SegFormer's authors 1e-6 in blocks and at the ends of stages."""
    for stage in model.segformer.stages:
        stage.layer_norm.eps = 1e-6
        for block in stage.blocks:
            block.layernorm_before.eps = block.layernorm_after.eps = 1e-6
    return model


@torch.no_grad()
def compared(ours: EncoderDecoder, theirs: SegformerForSemanticSegmentation) -> None:
    """The same logits on the same image: nearly as the library is, but for rounding with the authors' norms."""
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    normalised = (image - ours.mean) / ours.deviation
    logits = ours.decode(ours.features(image))
    largest = logits.abs().max().item()
    torch.testing.assert_close(theirs(normalised).logits, logits, rtol=0, atol=1e-3 * largest)
    torch.testing.assert_close(with_the_papers_norms(theirs)(normalised).logits, logits, rtol=0, atol=1e-5 * largest)


def test_a_folder_becomes_a_run_with_the_same_logits(recipe, tmp_path):
    theirs = their_model(recipe)
    theirs.save_pretrained(tmp_path / "theirs")
    names = load_file(tmp_path / "theirs" / "model.safetensors").keys()
    # The names that are on the hub.
    assert {"segformer.encoder.block.0.0.attention.self.query.weight", "decode_head.linear_c.3.proj.bias"} < names
    done = convert(tmp_path / "theirs", tmp_path / "run", recipe=recipe)
    assert (done.style, done.left_out, done.missing) == ("huggingface", (), ())
    compared(load_network(tmp_path / "run"), theirs)


def test_the_names_inside_the_library_are_read_too(recipe, tmp_path):
    theirs = their_model(recipe)
    tensors = theirs.state_dict()
    assert "decode_head.linear_projections.0.proj.weight" in tensors
    save_file(tensors, tmp_path / "theirs.safetensors")
    convert(tmp_path / "theirs.safetensors", tmp_path / "run", source="huggingface", recipe=recipe)
    compared(load_network(tmp_path / "run"), theirs)


def converted(recipe: Recipe, folder: Path) -> EncoderDecoder:
    """A run in `folder` with values of its own, by way of transformers."""
    their_model(recipe).save_pretrained(folder / "theirs")
    convert(folder / "theirs", folder / "run", recipe=recipe)
    return load_network(folder / "run")


def test_a_run_becomes_a_folder_that_transformers_loads(recipe, tmp_path, capsys):
    ours = converted(recipe, tmp_path)
    arguments = ["convert", tmp_path / "run", "--to", "huggingface", "--out", tmp_path / "back"]
    assert main([*map(str, arguments)]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'back'}: ")
    theirs, found = SegformerForSemanticSegmentation.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(found.values())
    compared(ours, theirs.eval())
    assert [theirs.config.id2label[i] for i in range(len(CLASSES))] == list(CLASSES)
    assert theirs.config.label2id == {name: i for i, name in enumerate(CLASSES)}
    assert (theirs.config.classifier_dropout_prob, theirs.config.drop_path_rate) == (0.1, 0.1)
    images = json.loads((tmp_path / "back" / "preprocessor_config.json").read_text())
    assert images["image_mean"] == pytest.approx([0.485, 0.456, 0.406], abs=1e-6)
    assert images["image_std"] == pytest.approx([0.229, 0.224, 0.225], abs=1e-6)
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".back")]
    convert(tmp_path / "back", tmp_path / "again", recipe=recipe)
    assert equal(load_network(tmp_path / "again").state_dict(), ours.state_dict())


def test_an_encoder_goes_both_ways(tmp_path):
    theirs = randomised(SegformerForImageClassification(SegformerConfig(**SMALL)))
    theirs.save_pretrained(tmp_path / "mit")
    done = convert(tmp_path / "mit", tmp_path / "start.safetensors")
    assert (done.style, done.left_out) == ("huggingface-mit", ("classifier.bias", "classifier.weight"))
    recipe = small_recipe(tmp_path / "data").override(f"network.weights={tmp_path / 'start.safetensors'}")
    from segda.networks import NETWORKS
    from segda.recipes.build import build
    from segda.run import save_network

    ours = build(NETWORKS, recipe.network, "network", class_names=CLASSES)
    save_network(tmp_path / "ours.safetensors", ours, recipe.network, step=1)
    with pytest.raises(SegdaError, match=r"tensors have no place in the other style \(huggingface-mit\): decoder"):
        convert(tmp_path / "ours.safetensors", tmp_path / "back", target="huggingface-mit")
    convert(tmp_path / "ours.safetensors", tmp_path / "back", target="huggingface-mit", leave_out=["decoder"])
    back, found = SegformerModel.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(found.values())
    assert equal(back.state_dict(), theirs.segformer.state_dict())


def test_a_killed_call_is_no_model_and_can_be_repeated(tmp_path, monkeypatch):
    recipe = small_recipe(tmp_path / "data").override(f"network={json.dumps(NETWORK | {'decoder': 'segformer_256'})}")
    converted(recipe, tmp_path)
    back, replace = tmp_path / "back", Path.replace

    def killed(path, other):
        if other == back / "config.json":
            raise KeyboardInterrupt
        return replace(path, other)

    convert(tmp_path / "run", tmp_path / "whole", target="huggingface")
    for overwrite in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", killed)
            with pytest.raises(KeyboardInterrupt):
                convert(tmp_path / "run", back, target="huggingface", overwrite=overwrite)
        assert sorted(path.name for path in back.iterdir()) == ["model.safetensors", "preprocessor_config.json"]
        (tmp_path / ".back.converted").mkdir()
        (tmp_path / ".back.converted" / "model.safetensors").write_text("half")
        convert(tmp_path / "run", back, target="huggingface")
        assert {path.name: path.read_bytes() for path in back.iterdir()} == {
            path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()
        }
        assert not list(tmp_path.glob(".*"))


def test_what_has_no_folder_of_theirs_is_refused(tmp_path):
    recipe = small_recipe(tmp_path / "data").override(f"network={json.dumps(NETWORK | {'decoder': 'segformer_256'})}")
    converted(recipe, tmp_path)
    back = tmp_path / "back"

    def refuses(said: str, given: Path = tmp_path / "run", out: Path = back, **settings) -> None:
        with pytest.raises(SegdaError, match=said) as caught:
            convert(given, out, target="huggingface", **settings)
        assert "\n" not in str(caught.value)

    refuses("keeps a model in a folder; name one", out=tmp_path / "back.pth")
    refuses("nothing that could be left out begins so", leave_out=["head"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    refuses("mine exists and is no folder of Hugging Face's kind", out=tmp_path / "mine", overwrite=True)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    refuses("thesis.tex/back", out=tmp_path / "mine" / "thesis.tex" / "back")
    convert(tmp_path / "run", back, target="huggingface")
    refuses("back exists; use --overwrite")
    before = load_file(back / "model.safetensors")
    convert(tmp_path / "run", back, target="huggingface", overwrite=True)
    assert equal(load_file(back / "model.safetensors"), before)
    other = tmp_path / "mit_daformer"
    plain = small_recipe(tmp_path / "data")
    from segda.networks import NETWORKS
    from segda.recipes.build import build
    from segda.run import save_network

    for name, spec, said in (
        (
            "daformer",
            plain.network,
            "holds mit_daformer, but huggingface checkpoints are encoder_decoder with decoder seg",
        ),
        (
            "conv1",
            recipe.network | {"decoder": "conv1"},
            "holds encoder_decoder with decoder conv1, but huggingface checkpoints are",
        ),
        (
            "resnet",
            {key: value for key, value in recipe.network.items() if key != "drop_path"} | {"encoder": "resnet50_v1c"},
            "has encoder resnet50_v1c, but huggingface models have a MiT",
        ),
    ):
        network = build(NETWORKS, spec, "network", class_names=CLASSES)
        save_network(tmp_path / f"{name}.safetensors", network, spec, step=1)
        refuses(said, tmp_path / f"{name}.safetensors", other)
        assert not other.exists()


def test_folders_and_hub_names_that_are_not_there_are_refused(tmp_path, monkeypatch):
    recipe = small_recipe(tmp_path / "data").override(f"network={json.dumps(NETWORK | {'decoder': 'segformer'})}")
    (tmp_path / "empty").mkdir()
    refused("the folder holds none of model.safetensors, pytorch_model.bin", tmp_path / "empty", recipe, None)
    asked = []
    monkeypatch.setattr("segda.conversion.to_ours.from_hub", lambda name: asked.append(name) or tmp_path / "none")
    monkeypatch.chdir(tmp_path)
    for source, known in (("huggingface", ["nvidia/segformer"]), ("daformer", []), (None, [])):
        with pytest.raises(SegdaError, match=r"--recipe: its network|nvidia/segformer: no such file"):
            convert("nvidia/segformer", "run", source=source, recipe=recipe)
        assert asked == known
        asked.clear()


# What the folder says of its network


@pytest.fixture
def narrow(tmp_path) -> Recipe:
    network = NETWORK | {"decoder": "segformer_256"}
    return small_recipe(tmp_path / "data").override(f"network={json.dumps(network)}")


def their_folder(folder: Path, recipe: Recipe, names: list[str], **images: object) -> SegformerForSemanticSegmentation:
    """A model of transformers that calls its classes so, with what its images are."""
    theirs = their_model(recipe)
    theirs.config.id2label = dict(enumerate(names))
    theirs.config.label2id = {name: id for id, name in theirs.config.id2label.items()}
    theirs.save_pretrained(folder)
    if images:
        (folder / "preprocessor_config.json").write_text(json.dumps(images))
    return theirs


def test_classes_are_put_into_the_recipes_order_by_their_names(narrow, tmp_path):
    names = [name.replace(" ", "_").upper() for name in CLASSES[::-1]]
    theirs = their_folder(tmp_path / "theirs", narrow, names)
    done = convert(tmp_path / "theirs", tmp_path / "run", recipe=narrow)
    assert "classes put into the recipe's order" in "\n".join(done.lines())
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["notes"] == list(done.notes)
    ours, image = load_network(tmp_path / "run"), torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        logits = ours.decode(ours.features(image))
        expected = with_the_papers_norms(theirs)((image - ours.mean) / ours.deviation).logits.flip(1)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5 * logits.abs().max().item())


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["sea", *CLASSES[1:]], f"only there: sea; only in the recipe: {CLASSES[0]}"),
        ([CLASSES[1], *CLASSES[1:]], f"only there: none; only in the recipe: {CLASSES[0]}"),
    ],
)
def test_classes_of_other_names_are_refused(narrow, tmp_path, names, said):
    their_folder(tmp_path / "theirs", narrow, names)
    refused(said, tmp_path / "theirs", narrow, None)


def test_a_student_that_starts_from_a_folder_obeys_it_too(narrow, tmp_path):
    theirs = their_folder(tmp_path / "theirs", narrow, list(CLASSES[::-1]), image_mean=[0.5, 0.4, 0.3])
    recipe = narrow.override(f"start={tmp_path / 'theirs'}")
    ours = student_of(recipe, space_named("camvid-11"), fresh=True)
    assert torch.equal(ours.decoder.classify.bias, theirs.decode_head.classifier.bias.flip(0))
    assert ours.mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3]) and ours.fill == pytest.approx(
        (0.5, 0.4, 0.3)
    )
    assert "classes put into the recipe's order" in ours.origin and "mean of images" in ours.origin


def test_images_are_normalised_as_the_folder_says(narrow, tmp_path):
    images = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.5]}
    theirs = their_folder(tmp_path / "theirs", narrow, list(CLASSES), **images)
    done = convert(tmp_path / "theirs", tmp_path / "run", recipe=narrow)
    assert any("0.5, 0.4, 0.3" in line for line in done.lines()) and done.added == ()
    ours, image = load_network(tmp_path / "run"), torch.rand(1, 3, 64, 96)
    assert ours.fill == pytest.approx((0.5, 0.4, 0.3))
    normalised = (image - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.2, 0.25, 0.5]).view(3, 1, 1)
    with torch.no_grad():
        logits, expected = ours.decode(ours.features(image)), with_the_papers_norms(theirs)(normalised).logits
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5 * logits.abs().max().item())


@pytest.mark.parametrize("before", ["model.", "net.", "_orig_mod.module.", "lit.student."])
def test_words_before_every_name_are_left_out(narrow, tmp_path, before):
    theirs = their_folder(tmp_path / "theirs", narrow, list(CLASSES))
    tensors = load_file(tmp_path / "theirs" / "model.safetensors")
    held = {before + name: tensor for name, tensor in tensors.items()}
    loss = {"criterion.weight": torch.ones(11)} if before == "model." else {}
    torch.save({"state_dict": held | loss, "epoch": 3}, tmp_path / "w.ckpt")
    done = convert(tmp_path / "w.ckpt", tmp_path / "run", recipe=narrow)
    assert done.left_out == ("epoch", "criterion.* (1)")[: 1 + len(loss)]
    assert "nothing beside w.ckpt names its classes" in "\n".join(done.lines())
    compared(load_network(tmp_path / "run"), theirs)


def test_of_two_networks_the_one_that_is_asked_for_is_taken(narrow, tmp_path):
    tensors = their_model(narrow).state_dict()
    zeros = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}

    def both(one: str, other: str) -> None:
        held = {one + name: each for name, each in tensors.items()} | {
            other + name: each for name, each in zeros.items()
        }
        torch.save({"state_dict": held}, tmp_path / "both.ckpt")

    both("net.", "teacher.")
    for weights, is_zero in (("student", False), ("teacher", True), ("ema", True)):
        convert(tmp_path / "both.ckpt", tmp_path / weights, recipe=narrow, weights=weights)
        assert (load_network(tmp_path / weights).decoder.classify.weight == 0).all() == is_zero
    their_folder(tmp_path / "theirs", narrow, list(CLASSES))
    refused("holds a student of style huggingface, and no teacher", tmp_path / "theirs", narrow, None, weights="ema")
    both("one.", "two.")
    refused(r"holds several networks, one\.\* and two\.\*", tmp_path / "both.ckpt", narrow, None)


def test_a_folder_of_several_files_becomes_the_run_that_a_single_file_makes(narrow, tmp_path):
    theirs = their_folder(tmp_path / "whole", narrow, list(CLASSES))
    theirs.save_pretrained(tmp_path / "parts", max_shard_size="100KB")
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    for folder in ("whole", "parts"):
        convert(tmp_path / folder, tmp_path / f"from_{folder}", recipe=narrow)
    ours, again = (load_network(tmp_path / f"from_{folder}").state_dict() for folder in ("whole", "parts"))
    assert equal(ours, again)

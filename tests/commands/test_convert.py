"""`segda convert`: checkpoints of other code to runs that can be measured and used, and back; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from conftest import small_recipe, write_camvid
from networks.test_resnet_weights import usual, without_counters
from networks.test_weights import Executes, official
from segda.cli.main import main
from segda.commands.convert import convert
from segda.commands.evaluate import evaluate
from segda.data.labels.spaces import space_named
from segda.errors import SegdaError, WeightsError
from segda.networks import NETWORKS, DeepLabV2, MiTDAFormer
from segda.recipes.build import build
from segda.recipes.recipe import Recipe
from segda.run import load_network, save_network
from weight_files import prefixed

CLASSES = space_named("camvid-11").classes
DEEPLAB = "{name: deeplab_v2, encoder: small, weights: scratch, multi_level: true, aux_weight: 0.1}"


@pytest.fixture
def recipe(tmp_path) -> Recipe:
    return small_recipe(tmp_path / "data").override(f"network={DEEPLAB}")


def deeplab(classes: tuple[str, ...] = CLASSES, **changes) -> DeepLabV2:
    """As after training: every tensor has values of its own."""
    torch.manual_seed(5)
    settings = {"multi_level": True, "aux_weight": 0.1} | changes
    ours = DeepLabV2(classes, encoder="small", weights="scratch", **settings)
    with torch.no_grad():
        for _ in range(3):
            ours(torch.rand(1, 3, 48, 64))
        for name, parameter in ours.named_parameters():
            if ".bn" in name or ".shortcut.1" in name:
                parameter.copy_(torch.rand(parameter.shape) + 0.5)
    return ours


def authors(ours: DeepLabV2) -> dict[str, Tensor]:
    """Its tensors as ADVENT names them, written out from its class."""
    tensors = usual(ours.encoder)
    for layer, head in (("layer5", "aux"), ("layer6", "main")):
        for i, branch in enumerate(ours.classifiers[head] if head in ours.heads else ()):
            tensors[f"{layer}.conv2d_list.{i}.weight"] = branch.weight.data
            tensors[f"{layer}.conv2d_list.{i}.bias"] = branch.bias.data
    return {name: tensor.clone() for name, tensor in tensors.items()}


def daformers(ours: MiTDAFormer, head: str = "decode_head.") -> dict[str, Tensor]:
    """Its tensors as DAFormer names them, written out from mmsegmentation's classes."""
    decoder = ours.decoder
    modules = {f"embed_layers.{i}.proj": embed for i, embed in enumerate(decoder.embed)}
    modules |= {
        "fuse_layer.aspp_modules.0.conv": decoder.branches[0][0],
        "fuse_layer.aspp_modules.0.bn": decoder.branches[0][1],
    }
    for kind, block in (("depthwise", decoder.branches[1][0]), ("pointwise", decoder.branches[1][1])):
        modules[f"fuse_layer.aspp_modules.1.{kind}_conv.conv"] = block[0]
        modules[f"fuse_layer.aspp_modules.1.{kind}_conv.bn"] = block[1]
    modules |= {"fuse_layer.bottleneck.conv": decoder.fuse[0], "fuse_layer.bottleneck.bn": decoder.fuse[1]}
    modules |= {"conv_seg": decoder.classify}
    tensors = prefixed("backbone.", official(ours.encoder))
    for name, module in modules.items():
        tensors |= prefixed(f"{head}{name}.", module.state_dict())
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def started(file: Path) -> dict[str, Tensor]:
    """The encoder of a new network with these weights, by the usual names."""
    return usual(DeepLabV2(CLASSES, encoder="small", weights=str(file), multi_level=False).encoder)


def saved(file: Path, tensors) -> Path:
    torch.save(tensors, file)
    return file


def equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in ours
    )


# Theirs to ours


@pytest.mark.parametrize("before", ["", "module."])
def test_a_checkpoint_becomes_a_run_that_says_what_the_network_said(before, recipe, tmp_path):
    theirs = deeplab().eval()
    file = saved(tmp_path / "theirs.pth", prefixed(before, authors(theirs)))
    done = convert(file, tmp_path / "run", source="advent", recipe=recipe)
    ours = load_network(tmp_path / "run")
    assert equal(ours.state_dict(), theirs.state_dict())
    assert ours.class_names == CLASSES
    image = torch.rand(1, 3, 48, 64)
    with torch.no_grad():
        assert torch.equal(ours.infer(image), theirs.infer(image))
    assert (done.tensors, done.left_out, done.added) == (174 + 16, (), ("mean", "scale"))
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["start"] == f"advent checkpoint {file}"


def test_the_run_can_be_measured_and_used(recipe, tmp_path):
    root = write_camvid(tmp_path / "data")
    file = saved(tmp_path / "theirs.pth", authors(deeplab()))
    convert(file, tmp_path / "run", source="advent", recipe=recipe)
    (report,) = evaluate(tmp_path / "run", ["camvid:test:dusk"], root)
    labels = [np.asarray(Image.open(path)) for path in (root / "camvid" / "testannot").iterdir()]
    assert report.counts.sum() == sum((label < 11).sum() for label in labels)
    images = root / "camvid" / "test"
    assert main(["predict", str(tmp_path / "run"), str(images), "--out", str(tmp_path / "labels")]) == 0
    picture = next(images.iterdir())
    with Image.open(picture) as image:
        pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = deeplab().eval().infer(pixels).argmax(1)[0]
    with Image.open(tmp_path / "labels" / f"{picture.stem}.png") as label:
        assert (np.asarray(label) == expected.numpy()).mean() > 0.99  # bfloat16 may flip a tie


def test_a_single_level_checkpoint_becomes_a_network_with_one_head(recipe, tmp_path):
    theirs = deeplab(multi_level=False, aux_weight=None)
    file = saved(tmp_path / "theirs.pth", authors(theirs))
    single = recipe.override("network.multi_level=false", "network.aux_weight=null")
    convert(file, tmp_path / "run", source="advent", recipe=single)
    assert equal(load_network(tmp_path / "run").state_dict(), theirs.state_dict())


def test_a_file_is_written_instead_of_a_run_and_knows_its_network(recipe, tmp_path):
    file = saved(tmp_path / "theirs.pth", authors(deeplab()))
    convert(file, tmp_path / "ours.safetensors", source="advent", recipe=recipe)
    with safe_open(tmp_path / "ours.safetensors", "pt") as held:
        facts = held.metadata()
    assert json.loads(facts["network"])["name"] == "deeplab_v2"
    assert tuple(json.loads(facts["class_names"])) == CLASSES
    assert equal(started(tmp_path / "ours.safetensors"), usual(deeplab().encoder))


def test_the_imagenet_file_becomes_a_start_for_the_encoder(tmp_path):
    theirs = deeplab()
    old = {"conv2d_list.0.weight": torch.zeros(21, 512, 3, 3), "conv2d_list.0.bias": torch.zeros(21)}
    held = prefixed("Scale.", without_counters(usual(theirs.encoder))) | prefixed("Scale.layer5.", old)
    file = saved(tmp_path / "DeepLab_resnet_pretrained_imagenet.pth", held)
    done = convert(file, tmp_path / "start.safetensors", source="advent-imagenet")
    assert done.left_out == ("Scale.layer5.conv2d_list.0.weight", "Scale.layer5.conv2d_list.0.bias")
    assert len(done.added) == 29 and all(name.endswith("num_batches_tracked") for name in done.added)
    ours = without_counters(started(tmp_path / "start.safetensors"))
    assert equal(ours, without_counters(usual(theirs.encoder)))
    assert equal(ours, without_counters(started(file)))


def test_what_has_no_place_is_refused_until_it_is_named(recipe, tmp_path):
    held = authors(deeplab()) | {
        "layer7.weight": torch.zeros(1),
        "layer7.bias": torch.zeros(1),
        "temperature": torch.zeros(1),
    }
    file = saved(tmp_path / "theirs.pth", {"state_dict": held, "epoch": 3})
    refused(r"3 tensors have no place .*: layer7.weight, layer7.bias, temperature; .* --leave-out layer7", file, recipe)
    refused(r"1 tensors have no place .*: temperature", file, recipe, leave_out=["layer7."])
    done = convert(file, tmp_path / "run", source="advent", recipe=recipe, leave_out=["layer7", "temperature"])
    assert done.left_out == ("epoch", "layer7.weight", "layer7.bias", "temperature")
    assert "left out 4: epoch, layer7.weight, layer7.bias, temperature" in done.lines()
    refused("--leave-out layer9: nothing", file, recipe, leave_out=["layer7", "temperature", "layer9"])


# Ours to theirs


def test_there_and_back_is_the_same_to_the_bit(recipe, tmp_path):
    theirs = authors(deeplab())
    assert theirs["bn1.num_batches_tracked"] == 3
    convert(saved(tmp_path / "theirs.pth", theirs), tmp_path / "run", source="advent", recipe=recipe)
    done = convert(tmp_path / "run", tmp_path / "back.pth", target="advent")
    assert done.left_out == ("mean", "scale")
    assert equal(torch.load(tmp_path / "back.pth", weights_only=True), theirs)
    convert(tmp_path / "run" / "network.safetensors", tmp_path / "again.pth", target="advent")
    assert equal(torch.load(tmp_path / "again.pth", weights_only=True), theirs)
    assert (tmp_path / "again.pth").read_bytes() == (tmp_path / "back.pth").read_bytes(), "whatever the file is called"
    convert(tmp_path / "again.pth", tmp_path / "run again", source="advent", recipe=recipe)
    ours, other = (tmp_path / run / "network.safetensors" for run in ("run", "run again"))
    assert ours.read_bytes() == other.read_bytes()


def test_the_encoder_goes_back_alone_when_that_is_agreed_to(recipe, tmp_path):
    theirs = deeplab()
    convert(saved(tmp_path / "theirs.pth", authors(theirs)), tmp_path / "run", source="advent", recipe=recipe)
    with pytest.raises(WeightsError, match=r"16 tensors have no place .*: classifiers\.aux\.0"):
        convert(tmp_path / "run", tmp_path / "start.pth", target="advent-imagenet")
    convert(tmp_path / "run", tmp_path / "start.pth", target="advent-imagenet", leave_out=["classifiers"])
    ours = torch.load(tmp_path / "start.pth", weights_only=True)
    assert equal(ours, prefixed("Scale.", usual(theirs.encoder)))


def test_daformers_names_go_there_and_back(tmp_path):
    recipe = small_recipe(tmp_path / "data")
    settings = {key: value for key, value in recipe.network.items() if key != "name"}
    torch.manual_seed(2)
    network = MiTDAFormer(CLASSES, **settings)
    theirs = daformers(network)
    # As lhoyer/DAFormer saves a whole training: the student, its teacher, the start.
    averaged = {name: 2 * tensor for name, tensor in theirs.items()}
    start = {"imnet_model.backbone.norm1.weight": torch.zeros(16), "imnet_model.backbone.norm1.bias": torch.zeros(16)}
    whole = prefixed("model.", theirs) | prefixed("ema_model.", averaged) | start
    file = saved(tmp_path / "iter_40000.pth", {"meta": {"iter": 40000}, "state_dict": whole})
    done = convert(file, tmp_path / "run", source="daformer", recipe=recipe)
    assert done.left_out == ("meta", f"ema_model.* ({len(theirs)})", "imnet_model.* (2)")
    assert equal(load_network(tmp_path / "run").state_dict(), network.state_dict())
    done = convert(file, tmp_path / "teacher", source="daformer", recipe=recipe, weights="teacher")
    assert done.left_out == ("meta", f"model.* ({len(theirs)})", "imnet_model.* (2)")
    bias = load_network(tmp_path / "teacher").state_dict()["decoder.classify.bias"]
    assert torch.equal(bias, averaged["decode_head.conv_seg.bias"])
    alone = saved(tmp_path / "published.pth", theirs)
    refused("holds a student of style daformer, and no teacher", alone, recipe, "daformer", weights="teacher")
    convert(tmp_path / "run", tmp_path / "back.pth", target="daformer")
    assert equal(torch.load(tmp_path / "back.pth", weights_only=True), theirs)


def test_another_head_goes_there_and_back_without_what_the_authors_never_use(tmp_path):
    settings = {"name": "encoder_decoder", "encoder": "tiny", "decoder": "segformer", "dropout": 0.1, "drop_path": 0.1}
    recipe = small_recipe(tmp_path / "data").override(f"network={settings | {'weights': 'scratch'}}")
    network = build(NETWORKS, recipe.network, "network", class_names=CLASSES)
    save_network(tmp_path / "ours.safetensors", network, recipe.network, step=1)
    convert(tmp_path / "ours.safetensors", tmp_path / "theirs.pth", target="daformer-segformer")
    held = torch.load(tmp_path / "theirs.pth", weights_only=True)
    assert torch.equal(held["decode_head.linear_pred.bias"], network.decoder.classify.bias)
    assert torch.equal(held["backbone.norm4.weight"], network.encoder.stages[3].layer_norm.weight)
    unused = {"decode_head.conv_seg.weight": torch.zeros(11, 128, 1, 1), "decode_head.conv_seg.bias": torch.zeros(11)}
    file = saved(tmp_path / "whole.pth", prefixed("model.", held | unused))
    done = convert(file, tmp_path / "run", source="daformer-segformer", recipe=recipe)
    assert done.left_out == tuple(f"model.{name}" for name in unused)
    assert equal(load_network(tmp_path / "run").state_dict(), network.state_dict())
    other = recipe.override("network.decoder=conv1")
    refused("decode_head.linear_pred.weight is .11, 768, 1, 1. instead of", file, other, source="daformer-segformer")
    refused(r"16 tensors have no place .*: model\.decode_head\.linear", file, recipe, "daformer-upernet")


# Refused


def refused(
    said: str, given: Path, recipe: Recipe | None, source: str | None = "advent", out: str = "refused", **settings
) -> None:
    """An error in one line that says so; nothing is written."""
    out = given.parent / out
    with pytest.raises(SegdaError, match=said) as caught:
        convert(given, out, source=source, recipe=recipe, **settings)
    assert "\n" not in str(caught.value)
    assert not out.exists()


def without(*names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in authors(deeplab()).items() if name not in names}


@pytest.mark.parametrize(
    ("held", "changes", "said"),
    [
        (
            lambda: authors(deeplab(CLASSES[:7])),
            [],
            r"network of 11 classes: layer5\.conv2d_list\.0\.weight is \[7, 256, 3, 3\] instead of \[11, 256, 3, 3\]",
        ),
        (
            lambda: authors(deeplab(multi_level=False, aux_weight=None)),
            [],
            r"it lacks layer5\.conv2d_list\.0\.weight, .* and 5 more; .* --set network.KEY=VALUE",
        ),
        (
            lambda: authors(deeplab()),
            ["network.multi_level=false", "network.aux_weight=null"],
            r"it has besides layer5\.conv2d_list\.0\.weight",
        ),
        (
            lambda: authors(deeplab()),
            ["network.encoder='50'"],
            r"does not fit encoder 50: .*; it is a ResNet-SMALL file: set network.encoder: small",
        ),
        (lambda: without("layer2.1.conv2.weight"), [], r"1 tensors missing: stages\.1\.1\.conv2\.weight"),
        (lambda: without("layer6.conv2d_list.3.bias"), [], r"it lacks layer6\.conv2d_list\.3\.bias; "),
        (lambda: {**authors(deeplab()), **prefixed("module.", authors(deeplab()))}, [], "there twice"),
        (
            lambda: prefixed("Scale.", usual(deeplab().encoder)),
            [],
            r"nothing of style advent; its first names are Scale\.conv1\.weight.*; they are of style advent-imagenet",
        ),
        (lambda: {"weight": torch.zeros(3)}, [], r"nothing of style advent; .* weight; is it the right file\?"),
        (lambda: {"epoch": 3}, [], "holds no tensors by name"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_does_not_fit_is_refused_and_nothing_is_written(held, changes, said, recipe, tmp_path):
    refused(said, saved(tmp_path / "theirs.pth", held()), recipe.override(*changes) if changes else recipe)


def test_a_checkpoint_with_code_in_it_is_refused_and_not_run(recipe, tmp_path):
    witness = tmp_path / "witness"
    held = {**authors(deeplab()), "extra": Executes(witness)}
    refused("refused and not run", saved(tmp_path / "theirs.pth", held), recipe)
    assert not witness.exists()


def test_settings_that_make_no_sense_are_named(recipe, tmp_path):
    file = saved(tmp_path / "theirs.pth", authors(deeplab()))
    refused("no such file", tmp_path / "other.pth", recipe)
    refused("unknown style 'advnet'; did you mean 'advent'", file, recipe, source="advnet")
    refused("convert from segda to segda: one of them must be segda", file, recipe, source="segda")
    refused("convert from advent to daformer: one of them", file, recipe, target="daformer")
    refused("--recipe: needed", file, None)
    other = small_recipe(tmp_path / "data")
    refused("its network is mit_daformer, but advent checkpoints are deeplab_v2", file, other)
    refused("holds an encoder alone; write a .safetensors file", file, None, source="advent-imagenet")
    for out, source, target, said in (
        ("out.pth", "advent", "segda", "kept in a run folder or a .safetensors file"),
        ("out.safetensors", "segda", "advent", r"write a file ending in \.pth"),
    ):
        with pytest.raises(SegdaError, match=said):
            convert(file, tmp_path / out, source, target, recipe)
        assert not (tmp_path / out).exists()


def test_nothing_is_overwritten_unasked(recipe, tmp_path):
    file, run = saved(tmp_path / "theirs.pth", authors(deeplab())), tmp_path / "run"
    for out, said in (
        (run, "run already holds a run; use --overwrite"),
        (tmp_path / "ours.safetensors", "exists; use --overwrite"),
    ):
        convert(file, out, source="advent", recipe=recipe)
        with pytest.raises(SegdaError, match=said):
            convert(file, out, source="advent", recipe=recipe)
        convert(file, out, source="advent", recipe=recipe, overwrite=True)
    with pytest.raises(SegdaError, match="theirs.pth exists; use --overwrite"):
        convert(run, file, target="advent")
    with pytest.raises(SegdaError, match="is a folder; name a file"):
        convert(run, _folder(tmp_path / "out.pth"), target="advent", overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(SegdaError, match="mine exists and is not a run"):
        convert(file, tmp_path / "mine", source="advent", recipe=recipe, overwrite=True)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_killed_call_is_no_network_and_can_be_repeated(recipe, tmp_path, monkeypatch):
    file, run = saved(tmp_path / "theirs.pth", authors(deeplab())), tmp_path / "run"
    replace = Path.replace

    def killed(path, other):
        if other == run / "network.safetensors":
            raise KeyboardInterrupt
        return replace(path, other)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            convert(file, run, source="advent", recipe=recipe)
    assert sorted(path.name for path in run.iterdir()) == ["data.json", "environment.json", "recipe.yaml"]
    (tmp_path / ".run.converted").write_text("half")
    convert(file, run, source="advent", recipe=recipe)
    assert equal(load_network(run).state_dict(), deeplab().state_dict()) and not list(tmp_path.glob(".*"))


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_run_that_cannot_go_back_is_refused(recipe, tmp_path):
    run = tmp_path / "run"
    convert(saved(tmp_path / "theirs.pth", authors(deeplab())), run, source="advent", recipe=recipe)
    back = tmp_path / "back.pth"
    for given, target, which, said in (
        (run, "daformer", "student", "holds deeplab_v2, but daformer checkpoints are mit_daformer"),
        (run, "advent", "teacher", r"has no teacher \(teacher.safetensors\)"),
        (_folder(tmp_path / "empty"), "advent", "student", "is not a run folder"),
        (tmp_path / "theirs.pth", "advent", "student", "not a readable safetensors file"),
        (tmp_path / "none.safetensors", "advent", "student", "not a readable safetensors file"),
    ):
        with pytest.raises(SegdaError, match=said) as caught:
            convert(given, back, target=target, weights=which)
        assert "\n" not in str(caught.value)
    assert not back.exists()


# On the command line


def test_the_command_line_converts_and_says_what_it_left_out(recipe, tmp_path, capsys):
    file = saved(tmp_path / "theirs.pth", {"state_dict": authors(deeplab()), "epoch": 3})
    (tmp_path / "mine.yaml").write_text(recipe.to_yaml())
    arguments = ["convert", file, "--from", "advent", "--recipe", tmp_path / "mine.yaml", "--out", tmp_path / "run"]
    assert main([*map(str, arguments), "--set", "seed=9"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"{tmp_path / 'run'}: 190 tensors",
        "left out 1: epoch",
        "added 2 that the file does not have: mean, scale",
    ]
    assert "seed: 9" in (tmp_path / "run" / "recipe.yaml").read_text()
    assert main(list(map(str, arguments))) == 2
    line = capsys.readouterr().err
    assert line.startswith("segda: ") and len(line.splitlines()) == 1
    back = ["convert", tmp_path / "run", "--to", "advent", "--out", tmp_path / "back.pth"]
    assert main(list(map(str, back))) == 0
    assert equal(torch.load(tmp_path / "back.pth", weights_only=True), authors(deeplab()))

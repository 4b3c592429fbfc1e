"""`segda convert` on whole trainings of other code, on networks that we have in part, and on styles told from names."""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from commands.test_convert import CLASSES, authors, daformers, deeplab, equal, refused, saved
from conftest import small_recipe
from networks.test_resnet_weights import usual
from networks.test_weights import encoder, official, published, random_biases
from segda.cli.main import main
from segda.commands.convert import convert
from segda.conversion.asked import TRANSLATORS
from segda.data.labels.spaces import space_named
from segda.errors import SegdaError
from segda.networks import NETWORKS, DeepLabV2, MiTDAFormer
from segda.networks.encoders.mit import MiT
from segda.networks.weights.layouts import LAYOUTS, styles_of
from segda.recipes.build import build
from segda.recipes.recipe import Recipe
from segda.run import load_network, save_network
from segda.training.assembly import student_of
from weight_files import prefixed

SEGFORMER = (
    "{name: encoder_decoder, encoder: tiny, weights: scratch, decoder: segformer_256, dropout: 0.1, drop_path: 0.1}"
)


@pytest.fixture
def recipe(tmp_path) -> Recipe:
    """Of a small MiT with DAFormer's decoder."""
    return small_recipe(tmp_path / "data")


def trained(recipe: Recipe) -> MiTDAFormer:
    """The recipe's network, every tensor with values of its own."""
    torch.manual_seed(2)
    network = build(NETWORKS, recipe.network, "network", class_names=CLASSES)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.removeprefix("over.") not in ("mean", "deviation") and tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return network


# What a training leaves behind


META = {
    "mmcv_version": "1.3.7",
    "iter": 40000,
    "config": "norm_cfg = dict(type='BN')\n",
    "CLASSES": CLASSES,
    "PALETTE": [list(colour) for colour in space_named("camvid-11").colours.values()],
    "hook_msgs": {
        "best_score": np.float64(0.6832),
        "best_ckpt": "best.pth",
        "single": np.float32(0.5),
        "seen": np.int64(12),
        "better": np.bool_(True),
        "per_class": np.arange(3.0),
        "named": np.array(["road", None], dtype=object),
    },
}
"""As mmcv writes it: strings, numbers of numpy; and arrays."""


def renamed(file: Path, before: bytes, after: bytes) -> Path:
    """The same file with a module of another name in its pickle, as an older library wrote it."""
    written = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as new:
        for item in old.infolist():
            held = old.read(item)
            assert not item.filename.endswith("data.pkl") or before in held
            new.writestr(item.filename, held.replace(before, after))
    file.write_bytes(written.getvalue())
    return file


@pytest.mark.parametrize("numpy", ["numpy 1", "numpy 2", "before torch 1.6"])
def test_a_training_with_numbers_of_numpy_in_it_is_read(numpy, recipe, tmp_path):
    network = trained(recipe)
    tensors = OrderedDict(prefixed("model.", daformers(network)))
    tensors._metadata = OrderedDict({"": {"version": 1}})  # as mmcv and DataParallel keep it
    optimiser = {"state": {0: {"step": 40000, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 6e-5}]}
    held = {"meta": META, "state_dict": tensors, "optimizer": optimiser}
    file = tmp_path / "iter_40000.pth"
    torch.save(held, file, _use_new_zipfile_serialization=numpy != "before torch 1.6")
    if numpy == "numpy 1":
        renamed(file, b"numpy._core.multiarray", b"numpy.core.multiarray")
    done = convert(file, tmp_path / "run", recipe=recipe)
    assert (done.style, done.left_out) == ("daformer", ("meta", "optimizer"))
    assert equal(load_network(tmp_path / "run").state_dict(), network.state_dict())


class Runs:
    """Makes a pickle that calls something when it is unpickled the ordinary way."""

    def __init__(self, call, *given):
        self.reduced = (call, given)

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("call", [os.system, os.mkdir, eval, np.save, np.load, np.ctypeslib.load_library])
def test_any_other_object_beside_the_numbers_is_refused_and_not_run(call, recipe, tmp_path):
    witness = tmp_path / "witness"
    given = {os.system: f"touch {witness}", eval: f"open({str(witness)!r}, 'w')"}.get(call, str(witness))
    meta = META | {"more": Runs(call, given)}
    file = saved(tmp_path / "iter_1.pth", {"meta": meta, "state_dict": daformers(trained(recipe))})
    refused("refused and not run: besides tensors it holds Python objects", file, recipe, "daformer")
    assert not witness.exists()


def test_numpy_itself_is_not_called_for_its_numbers(recipe, tmp_path, monkeypatch):
    file = saved(tmp_path / "iter_1.pth", {"meta": META, "state_dict": daformers(trained(recipe))})
    for name in ("scalar", "_reconstruct"):
        monkeypatch.setattr(np._core.multiarray, name, lambda *given: pytest.fail("called numpy"))
    convert(file, tmp_path / "run", source="daformer", recipe=recipe)


# What mmsegmentation says of the classes


BACKWARDS = [name.replace(" ", "_").title() for name in CLASSES[::-1]]


@pytest.mark.parametrize("around", [False, True])
@pytest.mark.parametrize(
    "meta",
    [{"CLASSES": tuple(BACKWARDS)}, {"dataset_meta": {"classes": BACKWARDS}}, {"dataset_meta": {"CLASSES": BACKWARDS}}],
)
def test_classes_are_put_into_the_recipes_order_by_the_names_in_the_file(meta, around, recipe, tmp_path):
    if around:
        recipe = recipe.override(f"network={HRDA.format(over=json.dumps(recipe.network))}")
    network = trained(recipe).eval()
    file = saved(tmp_path / "iter_1.pth", {"meta": meta, "state_dict": hrda(network) if around else daformers(network)})
    done = convert(file, tmp_path / "run", recipe=recipe)
    assert any("recipe's order, by the names in iter_1.pth: Bicyclist, " in line for line in done.lines())
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(load_network(tmp_path / "run").infer(image), network.infer(image).flip(1))
    if not around:
        student = student_of(recipe.override(f"start={file}"), space_named("camvid-11"), fresh=True)
        assert torch.equal(student.decoder.classify.bias, network.decoder.classify.bias.flip(0))


@pytest.mark.parametrize(
    ("meta", "said"),
    [
        (
            {"CLASSES": ("sea", *CLASSES[1:])},
            rf"iter_1\.pth: meta\.CLASSES: .* only there: sea; only in the recipe: {CLASSES[0]};",
        ),
        (
            {"CLASSES": (*CLASSES, "sea")},
            r"meta\.CLASSES: 12 classes, the recipe has 11; only there: sea; give a recipe",
        ),
        ({"dataset_meta": {"classes": ("a", "b")}}, r"meta\.dataset_meta\.classes: .* only there: a, b; only in the"),
        ({"CLASSES": 19}, r"meta\.CLASSES: is no list of names; --leave-out meta"),
        ({"CLASSES": np.array(CLASSES)}, r"meta\.CLASSES: is no list of names"),
    ],
)
def test_classes_of_other_names_are_refused_unless_they_are_left_out(meta, said, recipe, tmp_path):
    network = trained(recipe)
    file = saved(tmp_path / "iter_1.pth", {"meta": meta, "state_dict": daformers(network)})
    refused(said, file, recipe, None)
    done = convert(file, tmp_path / "run", recipe=recipe, leave_out=["meta"])
    assert "what iter_1.pth says of its classes is left out: taken to be in the recipe's order" in done.lines()
    assert equal(load_network(tmp_path / "run").state_dict(), network.state_dict())


def test_classes_of_a_classifier_that_is_left_out_do_not_matter(recipe, tmp_path):
    meta = {"CLASSES": tuple(f"thing {number}" for number in range(11))}
    file = saved(tmp_path / "iter_1.pth", {"meta": meta, "state_dict": daformers(trained(recipe))})
    convert(file, tmp_path / "run", recipe=recipe, leave_out=["decode_head.conv_seg"], allow_missing=True)


def test_a_palette_of_other_colours_is_said(recipe, tmp_path):
    colours = {name: list(colour) for name, colour in space_named("camvid-11").colours.items()}
    for name, given in (("same", colours), ("other", colours | {CLASSES[3]: [1, 2, 3]})):
        meta = {"CLASSES": CLASSES, "PALETTE": [*given.values()]}
        file = saved(tmp_path / f"{name}.pth", {"meta": meta, "state_dict": daformers(trained(recipe))})
        notes = convert(file, tmp_path / name, recipe=recipe).notes
        said = f"pictures have the recipe's colours, not the file's PALETTE: {CLASSES[3]}"
        assert notes == ((said,) if name == "other" else ())


# HRDA


HRDA = """{{name: hrda, box: [32, 32], grid: 8, context_scale: 0.5, detail_weight: 0.1, attention: conv1,
attention_dropout: 0.1, over: {over}}}"""


def hrda(network) -> dict[str, Tensor]:
    """As HRDA saves it: DAFormer's head inside its own, beside the attention over scales, which is a lighter one."""
    head = network.attention
    attention = {f"embed_layers.{i}.proj.{part}": getattr(one, part) for i, one in enumerate(head.embed) for part in
                 ("weight", "bias")}  # fmt: skip
    attention |= prefixed("fuse_layer.conv.", head.fuse[0].state_dict())
    attention |= prefixed("fuse_layer.bn.", head.fuse[1].state_dict()) | prefixed(
        "conv_seg.", head.classify.state_dict()
    )
    attention = {name: tensor.detach().clone() for name, tensor in attention.items()}
    return daformers(network.over, "decode_head.head.") | prefixed("decode_head.scale_attention.", attention)


def test_hrda_is_read_whole_and_written_back(recipe, tmp_path):
    inside = json.dumps(recipe.network)
    recipe = recipe.override(f"network={HRDA.format(over=inside)}")
    network = trained(recipe)
    theirs = prefixed("model.", hrda(network))
    # MIC's own second teacher, and the usual other two.
    others = prefixed("mic.teacher.ema_model.", hrda(network)) | prefixed("imnet_model.", hrda(network))
    averaged = prefixed("ema_model.", {name: 2 * tensor for name, tensor in hrda(network).items()})
    file = saved(tmp_path / "iter_40000.pth", {"state_dict": theirs | averaged | others})
    done = convert(file, tmp_path / "run", recipe=recipe)
    assert (done.style, done.missing) == ("hrda", ())
    assert {f"ema_model.* ({len(theirs)})", f"mic.* ({len(theirs)})"} < set(done.left_out)
    assert equal(load_network(tmp_path / "run").state_dict(), network.state_dict())
    convert(file, tmp_path / "teacher", recipe=recipe, weights="teacher")
    bias = load_network(tmp_path / "teacher").attention.classify.bias
    assert torch.equal(bias, 2 * network.attention.classify.bias)
    done = convert(tmp_path / "run", tmp_path / "back.pth", target="hrda")
    back = torch.load(tmp_path / "back.pth")
    assert equal(back, hrda(network)) and set(done.left_out) == {"over.mean", "over.deviation"}


def test_hrda_is_no_network_of_one_scale(recipe, tmp_path):
    inside = json.dumps(recipe.network)
    wrapped = recipe.override(f"network={HRDA.format(over=inside)}")
    file = saved(tmp_path / "iter_40000.pth", {"state_dict": hrda(trained(wrapped))})
    refused("style hrda, whose network is hrda over mit_daformer, not the recipe's mit_daformer", file, recipe, None)
    alone = saved(tmp_path / "alone.pth", {"state_dict": daformers(trained(recipe))})
    refused("style daformer.*, not the recipe's hrda; give a recipe with that network", alone, wrapped, None)


# SegFormer, as its authors publish it


def nvidias(network) -> dict[str, Tensor]:
    """Its tensors as NVlabs/SegFormer names them; the fusion's inputs stand deepest level first."""
    decoder = network.decoder
    tensors = prefixed("backbone.", official(network.encoder))
    for i, embed in enumerate(decoder.embed, start=1):
        tensors |= prefixed(f"decode_head.linear_c{i}.proj.", embed.state_dict())
    tensors |= prefixed("decode_head.linear_fuse.bn.", decoder.fuse[1].state_dict())
    weight, width = decoder.fuse[0].weight, decoder.embed[0].out_features
    columns = [weight[:, i * width : (i + 1) * width] for i in (3, 2, 1, 0)]
    tensors |= {"decode_head.linear_fuse.conv.weight": torch.cat(columns, dim=1)}
    tensors |= prefixed("decode_head.linear_pred.", decoder.classify.state_dict())
    tensors |= {"decode_head.conv_seg.weight": torch.zeros(11, 128, 1, 1), "decode_head.conv_seg.bias": torch.zeros(11)}
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def as_published(tensors: dict[str, Tensor], levels: list[Tensor]) -> Tensor:
    """The head's logits from its tensors by their published names, in float64: [c4, c3, c2, c1] stacked and fused."""
    held = {name.removeprefix("decode_head."): tensor.double() for name, tensor in tensors.items()}
    stack = []
    for i in (4, 3, 2, 1):
        rows = levels[i - 1].double().permute(0, 2, 3, 1)
        rows = rows @ held[f"linear_c{i}.proj.weight"].T + held[f"linear_c{i}.proj.bias"]
        stack.append(F.interpolate(rows.permute(0, 3, 1, 2), levels[0].shape[-2:], mode="bilinear"))
    fused = F.conv2d(torch.cat(stack, dim=1), held["linear_fuse.conv.weight"])
    statistics = (held[f"linear_fuse.bn.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
    fused = F.batch_norm(fused, *statistics, eps=1e-5).relu()
    return F.conv2d(fused, held["linear_pred.weight"], held["linear_pred.bias"])


def test_segformer_as_published_says_what_its_formula_says(recipe, tmp_path):
    recipe = recipe.override(f"network={SEGFORMER}")
    theirs = nvidias(trained(recipe))
    file = saved(tmp_path / "segformer.b0.pth", {"meta": META, "state_dict": theirs})
    done = convert(file, tmp_path / "run", recipe=recipe)
    assert (done.style, done.left_out) == (
        "segformer",
        ("meta", "decode_head.conv_seg.weight", "decode_head.conv_seg.bias"),
    )
    ours = load_network(tmp_path / "run")
    levels = [torch.randn(1, width, 16 >> i, 24 >> i) for i, width in enumerate((16, 32, 64, 96))]
    with torch.no_grad():
        torch.testing.assert_close(ours.decode(levels).double(), as_published(theirs, levels), rtol=1e-5, atol=1e-3)
    convert(tmp_path / "run", tmp_path / "back.pth", target="segformer")
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert equal(back, {name: tensor for name, tensor in theirs.items() if "conv_seg" not in name})


def test_daformers_segformer_head_keeps_its_own_order_of_levels(recipe, tmp_path):
    recipe = recipe.override(f"network={SEGFORMER}")
    network = trained(recipe)
    legacy = nvidias(network)
    newer = {name: tensor for name, tensor in legacy.items() if ".linear_c" not in name}
    newer |= {
        name.replace(f"linear_c{i + 1}", f"linear_c.{i}"): tensor
        for i in range(4)
        for name, tensor in legacy.items()
        if f"linear_c{i + 1}" in name
    }
    newer["decode_head.linear_fuse.conv.weight"] = network.decoder.fuse[0].weight.detach().clone()
    done = convert(saved(tmp_path / "daformers.pth", newer), tmp_path / "run", recipe=recipe)
    assert done.style == "daformer-segformer"
    assert equal(load_network(tmp_path / "run").state_dict(), network.state_dict())


@pytest.mark.parametrize("kind", ["mit", "huggingface-mit"])
def test_an_imagenet_encoder_becomes_a_start_and_goes_back(kind, recipe, tmp_path):
    theirs = random_biases(encoder())
    head = {"weight": torch.zeros(1000, 96), "bias": torch.zeros(1000)}
    if kind == "mit":
        held = official(theirs) | prefixed("head.", head)
    else:
        held = prefixed("segformer.", published(theirs)) | prefixed("classifier.", head)
    file = saved(tmp_path / "mit_b5.pth", {name: tensor.clone() for name, tensor in held.items()})
    done = convert(file, tmp_path / "start.safetensors")
    assert (done.style, done.tensors, done.missing) == (kind, 108, ())
    assert done.left_out == tuple(name for name in held if "head" in name or "classifier" in name)
    started = build(
        NETWORKS,
        recipe.network | {"weights": str(tmp_path / "start.safetensors")},
        "network",
        class_names=CLASSES,
    )
    assert equal(started.encoder.state_dict(), theirs.state_dict())
    if kind == "mit":
        save_network(tmp_path / "ours.safetensors", started, recipe.network, step=1)
        convert(tmp_path / "ours.safetensors", tmp_path / "back.pth", target="mit", leave_out=["decoder"])
        assert equal(torch.load(tmp_path / "back.pth", weights_only=True), official(theirs))
    refused("an encoder of style .* must be whole", file, None, kind, allow_missing=True, out="refused.safetensors")


# Styles told from names


@pytest.mark.parametrize("decoder", sorted(style for style in LAYOUTS if style.startswith("daformer-")))
def test_the_head_is_told_from_the_recipes_decoder(decoder, recipe, tmp_path):
    settings = {"encoder": "tiny", "weights": "scratch", "drop_path": 0.1, "decoder": decoder[9:].replace("-", "_")}
    settings |= {} if decoder == "daformer-deeplab-v2-reduced" else {"dropout": 0.1}
    network = {"name": "encoder_decoder"} | settings
    recipe = recipe.override(f"network={json.dumps(network)}")
    ours = build(NETWORKS, recipe.network, "network", class_names=CLASSES)
    save_network(tmp_path / "ours.safetensors", ours, recipe.network, step=1)
    convert(tmp_path / "ours.safetensors", tmp_path / "theirs.pth", target=decoder)
    done = convert(tmp_path / "theirs.pth", tmp_path / "again.safetensors", recipe=recipe)
    assert (done.style, done.left_out) == (decoder, ())
    assert equal(load_file(tmp_path / "again.safetensors"), ours.state_dict())


def test_a_style_that_cannot_be_told_is_refused_with_those_there_are(recipe, tmp_path):
    names = {"stem.weight": torch.zeros(1), "stem.bias": torch.zeros(1)}
    unknown = saved(tmp_path / "unknown.pth", names)
    refused(
        r"the student of no style that is known \(advent, .*, huggingface-mit\); .* stem\.weight", unknown, recipe, None
    )
    some = [*official(encoder()).items()][:4] + [*prefixed("Scale.", usual(deeplab().encoder)).items()][:4]
    file = saved(tmp_path / "both.pth", dict(some))
    refused(r"has names of advent-imagenet and mit; say which it is with --from", file, None, None)
    advents = saved(tmp_path / "advent.pth", authors(deeplab()))
    said = (
        r"has the names of style advent or dannet-deeplab, whose network is deeplab_v2 of variant advent or deeplab_v2 "
        r"of variant dannet, not the recipe's mit_daformer; give a recipe with"
    )
    refused(said, advents, recipe, None)
    refused("--recipe: needed to know the network of this advent or dannet-deeplab checkpoint", advents, None, None)
    student = saved(tmp_path / "student.pth", daformers(trained(recipe)))
    refused("holds a student of style .*, and no teacher", student, recipe, None, weights="teacher")
    twice = saved(tmp_path / "sepaspp.pth", daformers(trained(recipe)))
    with pytest.raises(SegdaError, match="network of this daformer or daformer-sep-aspp checkpoint; give a recipe"):
        convert(twice, tmp_path / "run")


def test_every_style_is_documented_and_nothing_else_is():
    text = (Path(__file__).parents[2] / "docs" / "CHECKPOINTS.md").read_text(encoding="utf-8")
    rows = [row.split("|") for row in text.splitlines() if row.startswith("| ") and "whose" not in row]
    assert {style for row in rows for style in re.findall(r"`([\w-]+)`", row[3])} == {TRANSLATORS, *LAYOUTS}


def test_what_is_ours_already_is_sent_the_other_way(recipe, tmp_path):
    convert(saved(tmp_path / "theirs.pth", daformers(trained(recipe))), tmp_path / "run", recipe=recipe)
    refused("is a run of ours; name the style that it shall have with --to", tmp_path / "run", recipe, None)
    refused("From our names to others: --to", tmp_path / "run" / "network.safetensors", recipe, None)


# What the file lacks


def test_what_the_file_lacks_stays_at_the_seeds_start_if_that_is_allowed(recipe, tmp_path):
    network = trained(recipe)
    theirs = daformers(network)
    gone = ["decode_head.conv_seg.weight", "backbone.norm2.bias"]
    file = saved(tmp_path / "theirs.pth", {name: tensor for name, tensor in theirs.items() if name not in gone})
    refused(r"1 tensors missing: stages\.1\.layer_norm\.bias", file, recipe, None)
    decoder = saved(tmp_path / "decoder.pth", {name: tensor for name, tensor in theirs.items() if name != gone[0]})
    refused(r"it lacks decode_head\.conv_seg\.weight; .*, or --allow-missing", decoder, recipe, None)
    refused("must be a run folder", file, recipe, None, allow_missing=True, out="refused.safetensors")
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    done = convert(file, tmp_path / "run", recipe=recipe, allow_missing=True)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert done.missing == ("encoder.stages.1.layer_norm.bias", "decoder.classify.weight")
    assert f"missing 2, now at their random start: {', '.join(done.missing)}" in done.lines()
    facts = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert facts["missing"] == [*done.missing]
    torch.manual_seed(recipe.seed)
    start = build(NETWORKS, recipe.network, "network", class_names=CLASSES).state_dict()
    ours = load_network(tmp_path / "run").state_dict()
    assert equal(ours, network.state_dict() | {name: start[name] for name in done.missing})
    assert start["decoder.classify.weight"].abs().min() > 0


def test_a_classifier_of_other_classes_can_be_left_out_and_started_anew(recipe, tmp_path):
    network = trained(recipe)
    theirs = daformers(network) | {
        "decode_head.conv_seg.weight": torch.zeros(150, 8, 1, 1),
        "decode_head.conv_seg.bias": torch.zeros(150),
    }
    file = saved(tmp_path / "ade20k.pth", theirs)
    refused(r"network of 11 classes: decode_head\.conv_seg\.\w+ is \[150", file, recipe, None, allow_missing=True)
    refused("it lacks decode_head.conv_seg", file, recipe, None, leave_out=["decode_head.conv_seg"])
    done = convert(file, tmp_path / "run", recipe=recipe, leave_out=["decode_head.conv_seg"], allow_missing=True)
    assert done.left_out == ("decode_head.conv_seg.weight", "decode_head.conv_seg.bias")
    assert set(done.missing) == {"decoder.classify.weight", "decoder.classify.bias"}
    assert load_network(tmp_path / "run").decoder.classify.weight.shape == (11, 8, 1, 1)
    with pytest.raises(SegdaError, match="--allow-missing has no effect with --to"):
        convert(tmp_path / "run", tmp_path / "back.pth", target="daformer", allow_missing=True)


# On the command line


def test_the_command_line_says_which_style_it_is(recipe, tmp_path, capsys):
    theirs = daformers(trained(recipe))
    del theirs["decode_head.conv_seg.bias"]
    file = saved(tmp_path / "theirs.pth", {"meta": META, "state_dict": theirs})
    (tmp_path / "mine.yaml").write_text(recipe.to_yaml())
    arguments = ["convert", file, "--recipe", tmp_path / "mine.yaml", "--out", tmp_path / "run"]
    assert main([*map(str, arguments)]) == 2
    assert "it lacks decode_head.conv_seg.bias" in capsys.readouterr().err
    assert main([*map(str, arguments), "--allow-missing"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path / 'run'}: {len(load_network(tmp_path / 'run').state_dict()) - 3} tensors",
        "style daformer, by the names in the file",
        "left out 1: meta",
        "added 2 that the file does not have: mean, deviation",
        "missing 1, now at their random start: decoder.classify.bias",
    ]
    assert isinstance(load_network(tmp_path / "run").encoder, MiT)


# One head, by another head's name


def fdas(ours: DeepLabV2) -> dict[str, Tensor]:
    """Its tensors as FDA and BDL name them, whose one head is called as ADVENT's auxiliary one."""
    return {name.replace("layer6.", "layer5."): tensor for name, tensor in authors(ours).items()}


@pytest.fixture
def of_one_head(recipe) -> Recipe:
    return recipe.override("network={name: deeplab_v2, encoder: small, weights: scratch, multi_level: false}")


@pytest.mark.parametrize("before", ["", "module."])
def test_a_file_of_one_head_is_told_from_advents_by_what_it_lacks(of_one_head, tmp_path, before):
    ours = deeplab(multi_level=False, aux_weight=None)
    file = saved(tmp_path / "theirs.pth", prefixed(before, fdas(ours)))
    done = convert(file, tmp_path / "run", recipe=of_one_head)
    assert (done.style, done.detected, done.missing) == ("single", True, ())
    image = torch.rand(1, 3, 48, 64)
    with torch.no_grad():
        assert torch.equal(load_network(tmp_path / "run")(image).logits, ours.eval()(image).logits)
    convert(tmp_path / "run", tmp_path / "back.pth", target="single")
    assert equal(torch.load(tmp_path / "back.pth", weights_only=True), fdas(ours))
    # ADVENT's two heads stay ADVENT's, whose names are DANNet's too, and its one head is called by another name.
    for tensors in (authors(deeplab()), authors(ours)):
        assert styles_of(tensors) == ["advent", "dannet-deeplab"]
    assert styles_of(fdas(ours)) == ["single"]


def test_one_head_for_two_and_the_auxiliary_head_alone_are_refused(recipe, of_one_head, tmp_path):
    two = recipe.override(
        "network={name: deeplab_v2, encoder: small, weights: scratch, multi_level: true, aux_weight: 0.1}"
    )
    file = saved(tmp_path / "single.pth", fdas(deeplab(multi_level=False, aux_weight=None)))
    with pytest.raises(SegdaError, match="classifiers.aux") as error:
        convert(file, tmp_path / "run", recipe=two)
    assert "\n" not in str(error.value)
    auxiliary = {name: tensor for name, tensor in authors(deeplab()).items() if not name.startswith("layer6.")}
    with pytest.raises(SegdaError, match="layer5.conv2d_list.0.weight|classifiers.main.0.weight") as error:
        convert(saved(tmp_path / "aux.pth", auxiliary), tmp_path / "run", recipe=of_one_head)
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()

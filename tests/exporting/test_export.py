"""`segda export`: the files that it leaves, read by their own libraries, and that bad input leaves none."""

import ctypes
import gc
import json
import pickle
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from PIL import Image
from transformers import AutoModelForSemanticSegmentation

from conftest import small_recipe, write_camvid
from networks.test_network_table import SMALL
from segda import run as runs
from segda.commands.export import export
from segda.commands.predict import predict
from segda.errors import RecipeError, RunError, RunFailure, WeightsError
from segda.exporting import formats, job
from segda.exporting.about import about_from
from segda.exporting.exported import Exported
from segda.exporting.huggingface import write_folder
from segda.ground.alone import alone_in
from segda.networks import NETWORKS
from segda.recipes.build import build
from segda.recipes.recipe import parse_recipe
from small_run import DUSK, SPACE, write_run

TRAIN = "camvid:train:dusk"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_camvid(tmp_path_factory.mktemp("camvid"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Of mit_daformer."""
    return write_run(tmp_path_factory.mktemp("runs") / "run", seed=3)


def run_of(folder, network):
    """A run folder of another network, at random."""
    tree = json.loads(small_recipe(folder / "data").model_dump_json())
    recipe = parse_recipe(tree | {"network": network}, "recipe")
    runs.begin(folder, recipe)
    torch.manual_seed(0)
    made = build(NETWORKS, recipe.network, "network", class_names=SPACE.classes)
    runs.save_network(runs.product_path(folder, "student"), made, recipe.network, recipe.steps)
    return folder


@pytest.fixture(scope="module")
def deeplab(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("runs") / "deeplab", SMALL["deeplab_v2 with one head"])


@pytest.fixture(scope="module")
def onnx_file(run, root):
    """Of any size; probabilities."""
    done = export(run, "onnx", run.parent / "file.onnx", output="probabilities", data=TRAIN, root=root)
    return done.path


@pytest.fixture(scope="module")
def classes_file(deeplab, root):
    """A program of torch; classes."""
    return export(deeplab, "torch", deeplab.parent / "file.pt2", data=TRAIN, root=root).path


@pytest.fixture(scope="module")
def half_done(deeplab, root):
    """A program of torch in float16, of one size, which is sooner read; classes."""
    return export(deeplab, "torch", deeplab.parent / "half.pt2", size="64x48", precision="16", data=TRAIN, root=root)


def image_of(height, width, seed=0):
    """(1, 3, H, W) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (1, 3, height, width), np.uint8)


def said_by(run, image):
    """(1, C, H, W) probabilities of the run's network."""
    with torch.no_grad():
        return runs.load_network(run).infer(torch.from_numpy(image) / 255).softmax(1).numpy()


@pytest.mark.parametrize("size", [(64, 96), (37, 75)])
def test_onnxruntime_alone_gets_the_networks_probabilities_at_any_size(run, onnx_file, size):
    session = onnxruntime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
    assert [(one.name, one.shape, one.type) for one in session.get_inputs()] == [
        ("image", ["batch", 3, "height", "width"], "tensor(uint8)")
    ]
    image = np.concatenate([image_of(*size, seed) for seed in (0, 1, 2)])
    (found,) = session.run(["classes"], {"image": image})
    assert found.shape == (3, len(SPACE.classes), *size)
    for place in range(3):
        np.testing.assert_allclose(found[place : place + 1], said_by(run, image[place : place + 1]), atol=2e-6)


def test_a_file_says_its_classes_their_colours_and_how_images_are_shown(run, onnx_file):
    told = {prop.key: prop.value for prop in onnx.load(onnx_file).metadata_props}["segda"]
    table = json.loads(told)
    assert table["classes"] == {name: list(colour) for name, colour in SPACE.colours.items()}
    assert (table["input"], table["output"], table["size"]) == ("uint8", "probabilities", None)
    assert table["evaluate"]["resize"] == runs.load_recipe_of(run).evaluate.resize
    about_from(told, "here")


def test_predict_paints_with_a_file_what_it_paints_with_its_run(run, onnx_file, root, tmp_path):
    asked = {"images": (), "data": DUSK, "root": root, "colour": True, "entropy": True, "precision": "auto"}
    ours = predict(run, out=tmp_path / "run", **asked | {"precision": "32"})
    theirs = predict(onnx_file, out=tmp_path / "file", **asked)
    assert [path.name for path in ours] == [path.name for path in theirs]
    for one, other in zip(ours, theirs, strict=True):
        with Image.open(one) as first, Image.open(other) as second:
            a, b = (np.array(image.convert("RGB")).astype(int) for image in (first, second))
        assert (np.abs(a - b).max(-1) <= 1).mean() > 0.999


def test_torch_alone_gets_classes(deeplab, classes_file):
    module = torch.export.load(classes_file).module()
    image = image_of(45, 61)
    found = module(torch.from_numpy(image)).numpy()
    assert found.dtype == np.uint8
    own = said_by(deeplab, image)
    assert (found == own.argmax(1)).mean() > 0.999


def test_entropy_is_refused_of_a_file_that_gives_classes(half_done, root, tmp_path):
    file = half_done.path
    with pytest.raises(RecipeError, match="gives classes alone; export it with --output probabilities"):
        predict(file, (), tmp_path / "out", entropy=True, data=DUSK, root=root, trust=file)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option", [{"weights": "teacher"}, {"step": 3}, {"device": "cuda"}, {"precision": "32"}], ids=str
)
def test_a_file_is_as_it_was_exported(classes_file, root, tmp_path, option):
    (name, value), *_ = option.items()
    with pytest.raises(RecipeError, match=f"--{name} {value}: .* is an exported file"):
        predict(classes_file, (), tmp_path / "out", data=DUSK, root=root, **option)


@pytest.fixture(scope="module")
def openvino_done(deeplab, root):
    """In eight bits, of one size; classes."""
    out = deeplab.parent / "folder"
    return export(deeplab, "openvino", out, size="56x40", precision="int8", data=TRAIN, score=DUSK, root=root)


def test_openvino_in_eight_bits_of_one_size(openvino_done, root, tmp_path):
    done = openvino_done
    assert {path.name for path in done.path.iterdir()} == {"network.xml", "network.bin"}
    assert formats.is_ours(done.path, formats.FORMATS["openvino"])
    core = openvino.Core()
    model = core.read_model(done.path / "network.xml")
    assert str(model.inputs[0].partial_shape) == "[?,3,40,56]"
    assert "FakeQuantize" in {node.get_type_name() for node in model.get_ops()}
    (found,) = core.compile_model(model, "CPU")(image_of(40, 56)).values()
    assert found.shape == (1, 40, 56)
    data, before, after = done.score
    assert data == DUSK and 0 <= before <= 1 and 0 <= after <= 1
    # Images of another size are stretched to it, and labels are of their own.
    (label, *_) = predict(done.path, (), tmp_path / "out", data=DUSK, root=root)
    with Image.open(label) as picture:
        assert picture.size == (64, 48)


def quantising_model(highs):
    """x (batch, 2, height, width) in 255 steps from 0 to `highs`."""
    ops = openvino.opset13
    given = ops.parameter([-1, 2, -1, -1], np.float32)
    low, high = ops.constant(np.zeros_like(highs)), ops.constant(highs)
    return openvino.Model([ops.fake_quantize(given, low, high, low, high, 256)], [given], "quantising")


def test_ranges_of_the_calibration_images_pixels_become_one_and_those_of_channels_stay():
    x = np.random.default_rng(0).uniform(0, 5, (2, 2, 5, 4)).astype(np.float32)
    for highs, kept in (([[[[1.0], [2.0], [4.0]]]], [[[[4.0]]]]), ([[[[1.0]], [[4.0]]]], [[[[1.0]], [[4.0]]]])):
        model = formats.with_common_ranges(quantising_model(np.array(highs, np.float32)))
        precision = {"INFERENCE_PRECISION_HINT": "f32"}
        (ours,) = formats.openvino_core().compile_model(model, "CPU", precision)(x).values()
        step = np.array(kept) / 255
        theirs = np.round(x.clip(0, kept) / step) * step
        assert np.abs(ours - theirs).max() < 1e-5


class SignalStack(ctypes.Structure):
    """stack_t of signal.h."""

    _fields_ = (("begins", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def test_memory_where_signals_are_handled_is_there_after_two_openvino_networks(openvino_done):
    first, second = (formats.opened(openvino_done.path) for _ in range(2))
    del first
    gc.collect()
    del second
    gc.collect()
    stack = SignalStack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    parts = [line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines()]
    assert not stack.begins or any(int(low, 16) <= stack.begins < int(high, 16) for low, high in parts)


def test_hugging_face_reads_a_segformer_without_segda(root, tmp_path):
    run = run_of(tmp_path / "run", SMALL["segformer"])
    done = export(run, "huggingface", tmp_path / "folder", data=TRAIN, root=root)
    model = AutoModelForSemanticSegmentation.from_pretrained(done.path).eval()
    assert tuple(model.config.id2label.values()) == SPACE.classes
    told = json.loads((done.path / "preprocessor_config.json").read_text())
    image = image_of(64, 96)
    mean, deviation = (torch.tensor(told[key]).view(3, 1, 1) for key in ("image_mean", "image_std"))
    with torch.no_grad():
        cells = model(pixel_values=(torch.from_numpy(image) * told["rescale_factor"] - mean) / deviation).logits
        logits = torch.nn.functional.interpolate(cells, (64, 96), mode="bilinear")
    np.testing.assert_allclose(logits.softmax(1).numpy(), said_by(run, image), atol=2e-6)


def test_a_folder_of_another_network_holds_tensors_and_no_code(run, root, tmp_path):
    done = export(run, "huggingface", tmp_path / "folder", data=TRAIN, root=root)
    assert {path.name for path in done.path.iterdir()} == {"config.json", "model.safetensors"}
    config = json.loads((done.path / "config.json").read_text())
    assert "auto_map" not in config and tuple(config["id2label"].values()) == SPACE.classes
    ours = predict(run, (), tmp_path / "run", data=DUSK, root=root, precision="32")
    theirs = predict(done.path, (), tmp_path / "file", data=DUSK, root=root)
    assert [path.read_bytes() for path in ours] == [path.read_bytes() for path in theirs]


def test_half_precision_is_half_as_large(deeplab, half_done):
    weights = runs.read_tensors(runs.product_path(deeplab, "student"))
    assert half_done.path.stat().st_size < 0.7 * sum(one.nbytes for one in weights.values())
    assert half_done.parity.share < 1 or half_done.parity.margin == 0


def broken(row, change):
    """A format whose files say other things than they should."""

    def opened(path):
        about, run = row.open(path)
        return about, lambda images: change(run(images))

    return replace(row, open=opened)


def test_a_file_that_says_other_things_is_not_kept(deeplab, root, tmp_path, monkeypatch):
    row = formats.FORMATS["huggingface"]
    monkeypatch.setitem(formats.FORMATS, "huggingface", broken(row, lambda said: (said + 1) % len(SPACE.classes)))
    with pytest.raises(RunFailure, match=r"folder: not kept.*0\.0000% of .* at least 99\.9% must agree"):
        export(deeplab, "huggingface", tmp_path / "folder", data=TRAIN, root=root)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_replaced_on_demand_alone(deeplab, root, tmp_path):
    asked = {"to": "huggingface", "out": tmp_path / "folder", "data": TRAIN, "root": root}
    export(deeplab, **asked)
    with pytest.raises(RunError, match="folder exists; use --overwrite"):
        export(deeplab, **asked)
    export(deeplab, **asked, overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("three years")
    with pytest.raises(RunError, match="mine exists and is not of segda export"):
        export(deeplab, **asked | {"out": tmp_path / "mine"}, overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "three years"


def test_two_exports_to_one_place_do_not_meet(deeplab, root, tmp_path):
    with (
        alone_in(tmp_path, "another process exports", lock=".folder.lock"),
        pytest.raises(RunError, match=r"another process exports.*; wait until it ends"),
    ):
        export(deeplab, "huggingface", tmp_path / "folder", data=TRAIN, root=root)
    export(deeplab, "huggingface", tmp_path / "folder", data=TRAIN, root=root)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


WRONG = {
    "precision of another format": ({"precision": "int8"}, "int8: onnx is written in 32, 16; use --to openvino"),
    "a size in words": ({"size": "large"}, "--size large: give any, or width and height"),
    "too small a size": ({"size": "16x64"}, "--size 16x64: the network needs 32 pixels"),
    "another ending": ({"out": "file.pt2"}, "a file for onnx ends in .onnx"),
    "a file for a folder": ({"to": "openvino", "out": "file.onnx"}, "openvino takes a folder"),
    "no such step": ({"step": 77}, "has no student of step 77"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_bad_input_leaves_nothing(run, root, tmp_path, wrong, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked, message = WRONG[wrong]
    with pytest.raises((RecipeError, WeightsError), match=message):
        export(run, **{"out": tmp_path / "file.onnx", "data": TRAIN, "root": root} | asked)
    assert list(tmp_path.iterdir()) == []


def test_a_network_of_windows_needs_one_size(root, tmp_path):
    run = run_of(tmp_path / "run", SMALL["hrda"])
    with pytest.raises(RecipeError, match="network hrda: what it computes depends on .*--size WxH"):
        export(run, "torch", tmp_path / "file.pt2", data=TRAIN, root=root)
    done = export(run, "torch", tmp_path / "file.pt2", size="64x64", data=TRAIN, root=root)
    assert done.parity.share > 0.999 and done.about.evaluate.resize == (64, 64)
    module = torch.export.load(done.path).module()
    image = np.concatenate([image_of(64, 64), image_of(64, 64, 1)])
    assert (module(torch.from_numpy(image)).numpy() == said_by(run, image).argmax(1)).mean() > 0.999


def test_a_library_that_is_not_installed_is_named_with_its_extra(run, root, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(RecipeError, match=r"onnxscript is not installed; pip install 'segda\[export\]'"):
        export(run, "onnx", tmp_path / "file.onnx", data=TRAIN, root=root)
    assert list(tmp_path.iterdir()) == []


def test_files_of_others_and_damaged_ones_are_refused(onnx_file, tmp_path, root):
    model = onnx.load(onnx_file)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(WeightsError, match=r"foreign.onnx: does not say that segda exported it"):
        predict(tmp_path / "foreign.onnx", (), tmp_path / "out", data=DUSK, root=root)
    (tmp_path / "cut.onnx").write_bytes(onnx_file.read_bytes()[:5000])
    with pytest.raises(WeightsError, match=r"cut.onnx: cannot be read \(.*\); export or copy it again"):
        predict(tmp_path / "cut.onnx", (), tmp_path / "out", data=DUSK, root=root)
    with pytest.raises(WeightsError, match=r"none.onnx: no such file"):
        predict(tmp_path / "none.onnx", (), tmp_path / "out", data=DUSK, root=root)
    onnx.helper.set_model_props(model, {"segda": json.dumps({"classes": {"road": [0, 0, 300]}})})
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(WeightsError, match=r"odd.onnx: what it says of itself cannot be read"):
        predict(tmp_path / "odd.onnx", (), tmp_path / "out", data=DUSK, root=root)
    assert not (tmp_path / "out").exists()


def test_the_lines_say_how_well_it_agrees(run, onnx_file, root):
    assert job.size_named("640x480") == (480, 640)
    done = export(run, "huggingface", run.parent / "told", data=TRAIN, root=root, output="probabilities")
    first, second, third = done.lines()
    assert first.startswith(
        f"{run.parent / 'told'}: student of source_only camvid:train:day -> camvid:train:dusk after step 4, 32, "
    )
    assert second == "in: (B, 3, H, W) uint8 RGB of any size from 32; out: (B, C, H, W) float32; 11 classes"
    assert third.startswith("100.0000% of ") and third.endswith("probabilities differ by 0.0e+00 at most")


def poisoned(file, mark):
    """A program of torch, sound but for one part, which is a pickle that writes `mark`."""

    class Poison:
        def __reduce__(self):
            return Path.write_text, (mark, "ran")

    whole = file.with_name("poisoned.pt2")
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(whole, "w") as new:
        for name in old.namelist():
            new.writestr(name, pickle.dumps(Poison()) if name.endswith("sample_inputs/model.pt") else old.read(name))
    return whole


def test_a_strangers_program_of_torch_runs_nothing_unless_it_is_trusted(classes_file, root, tmp_path):
    mark = tmp_path / "mark"
    file = poisoned(classes_file, mark)
    asked = {"images": (), "out": tmp_path / "out", "data": DUSK, "root": root}
    with pytest.raises(RunError, match=r"poisoned.pt2: .* was not read: add --trust .*poisoned.pt2"):
        predict(file, **asked)
    with pytest.raises(RunError, match="add --trust"):
        predict(file, **asked, trust=classes_file)
    assert not mark.exists()
    with pytest.raises(WeightsError, match="poisoned.pt2: cannot be read"):
        predict(file, **asked, trust=file)
    assert mark.read_text() == "ran", "it is no poison"


def test_a_trusted_program_of_torch_paints(half_done, root, tmp_path):
    file = half_done.path
    assert predict(file, (), tmp_path / "out", data=DUSK, root=root, trust=file.parent)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of Hugging Face's kind, of any size; without a comparison."""
    run = write_run(tmp_path_factory.mktemp("runs") / "run", seed=3)
    recipe, network = runs.load_recipe_of(run), runs.load_network(run)
    asked = job.Asked(run, "huggingface", None, "any", "student", "32", "uint8", "ids", None, None, None, None, False)
    place = run.parent / "folder"
    place.mkdir()
    write_folder(network, job.about_run(asked, recipe, network), place, ())
    return place


def changed(folder, place, **config):
    """The folder, with other words in its config.json."""
    shutil.copytree(folder, place)
    told = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(told | config))
    return place


def about_of(folder, path, value):
    """What the folder says of itself, but for one thing."""
    table = json.loads(json.loads((folder / "config.json").read_text())["segda"])
    *keys, last = path.split(".")
    inside = table
    for key in keys:
        inside = inside[key]
    inside[last] = value
    return json.dumps(table)


def test_a_strangers_folder_names_no_class_that_is_imported(folder, root, tmp_path, monkeypatch):
    (tmp_path / "theirs.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w').close()")
    monkeypatch.syspath_prepend(str(tmp_path))
    bad = changed(folder, tmp_path / "bad", segda=about_of(folder, "network", {"name": "theirs:Net"}))
    with pytest.raises(RunError, match="it was not run: add --trust"):
        predict(bad, (), tmp_path / "out", data=DUSK, root=root)
    assert not (tmp_path / "mark").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [None, 7, "bert", ["segda"]], ids=str)
def test_a_folder_of_another_model_is_refused(folder, root, tmp_path, kind):
    bad = changed(folder, tmp_path / "bad", model_type=kind, auto_map={"AutoModel": "theirs.Net"})
    with pytest.raises(WeightsError, match="bad: model_type .* is not of segda export"):
        predict(bad, (), tmp_path / "out", data=DUSK, root=root)


IMPOSSIBLE = {
    "size": [0, 64],
    "smallest": -1,
    "evaluate.resize": [-64, 48],
    "evaluate.scales": [],
    "evaluate.how": "slide",
    "evaluate.stride": [0, 32],
    "classes": {f"class {place}": [0, 0, 0] for place in range(300)},
}


@pytest.mark.parametrize("path", IMPOSSIBLE)
def test_what_a_file_says_of_itself_can_be(folder, path):
    about_from(about_of(folder, "step", 4), "here")
    with pytest.raises(WeightsError, match="here: what it says of "):
        about_from(about_of(folder, path, IMPOSSIBLE[path]), "here")
    if path not in ("evaluate.scales", "evaluate.how", "classes"):
        value = 10**12 if path == "smallest" else [10**12, 64]
        with pytest.raises(WeightsError, match="here: what it says of sizes cannot be"):
            about_from(about_of(folder, path, value), "here")


@pytest.mark.parametrize("said", [np.full((1, 8, 8), 11, np.uint8), np.zeros((1, 8, 8), np.int64)], ids=["id", "kind"])
def test_ids_of_no_class_are_refused(folder, said):
    about = about_from(about_of(folder, "step", 4), "here")
    with pytest.raises(WeightsError, match="here: gave other ids than of its 11 classes"):
        Exported(about, lambda _: said, "here").infer(torch.zeros(1, 3, 8, 8))


def test_a_graph_that_fails_is_one_line(folder):
    def fails(_):
        raise RuntimeError("no input named image\nnor another")

    about = about_from(about_of(folder, "step", 4), "here")
    with pytest.raises(WeightsError, match=r"here: cannot be run \(no input named image\); export it again"):
        Exported(about, fails, "here").infer(torch.zeros(1, 3, 8, 8))


OTHERS = {
    "onnx": ("model.onnx", None),
    "torch": ("model.pt2", None),
    "huggingface": ("model", "config.json"),
    "openvino": ("model", "network.xml"),
}
"""Where somebody else's model lies; the file of a folder that looks like ours."""


@pytest.mark.parametrize("to", OTHERS)
def test_models_of_others_are_never_replaced(deeplab, root, tmp_path, to):
    name, inside = OTHERS[to]
    out = tmp_path / name
    file = out if inside is None else out / inside
    file.parent.mkdir(exist_ok=True)
    file.write_text("<net/>" if to == "openvino" else "{}")
    with pytest.raises(RunError, match=r"model.* exists and is not of segda export; choose another --out"):
        export(deeplab, to, out, data=TRAIN, root=root, overwrite=True)
    assert file.read_text() in ("<net/>", "{}")


def test_an_openvino_folder_without_weights_says_what_is_missing(root, tmp_path):
    given = openvino.opset13.parameter([64], np.float32)
    openvino.save_model(
        openvino.Model([given * np.arange(64, dtype=np.float32)], [given]), tmp_path / "folder/network.xml"
    )
    (tmp_path / "folder/network.bin").unlink()
    with pytest.raises(WeightsError, match=r"folder: cannot be read \(.*bin file.*\); export or copy it again"):
        predict(tmp_path / "folder", (), tmp_path / "out", data=DUSK, root=root)


def test_what_segda_exported_may_be_replaced(onnx_file, classes_file, folder, tmp_path):
    assert formats.is_ours(onnx_file, formats.FORMATS["onnx"])
    assert formats.is_ours(classes_file, formats.FORMATS["torch"])
    assert not formats.is_ours(classes_file, formats.FORMATS["onnx"])
    assert formats.is_ours(folder, formats.FORMATS["huggingface"])
    more = changed(folder, tmp_path / "more")
    (more / "thesis.txt").write_text("three years")
    assert not formats.is_ours(more, formats.FORMATS["huggingface"])

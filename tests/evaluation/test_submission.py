"""`segda predict --submission`: archives as the servers of Cityscapes, ACDC and Dark Zurich take them."""

import io
import math
import re
import zipfile
from dataclasses import replace
from fnmatch import fnmatch

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from conftest import small_recipe
from segda import run as runs
from segda.cli.main import main
from segda.commands.predict import predict
from segda.data.labels.label_ids import label_ids
from segda.data.labels.spaces import space_named
from segda.errors import DataError, RecipeError, RunError
from segda.evaluation import submission as module
from segda.evaluation.submission import SERVERS
from segda.ground.alone import alone_in
from segda.networks import NETWORKS
from segda.recipes.build import build
from small_run import write_run

NINETEEN = space_named("cityscapes-19")
LABEL_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
"""Cityscapes' ids of the 19 classes, road to bicycle."""

TREES = {
    "cityscapes": [
        "cityscapes/leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png",
        "cityscapes/leftImg8bit/test/mainz/mainz_000001_010853_leftImg8bit.png",
    ],
    "acdc": [
        "ACDC/rgb_anon/fog/test/GOPR0475/GOPR0475_frame_000247_rgb_anon.png",
        "ACDC/rgb_anon/night/test/GP010594/GP010594_frame_000034_rgb_anon.png",
    ],
    "dark-zurich": ["Dark_Zurich/rgb_anon/test/night/GOPR0364/GOPR0364_frame_000001_rgb_anon.png"],
}


def write_nineteen(run, space="cityscapes-19"):
    """A run of a network with other classes than small_run's, random, that sees images in 96x96."""
    torch.manual_seed(4)
    recipe = small_recipe("data").override(f"data.space={space}", "evaluate.resize=[96, 96]")
    runs.begin(run, recipe)
    network = build(NETWORKS, recipe.network, "network", class_names=space_named(space).classes)
    for buffer in network.decoder.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.1, 1)
    runs.save_network(runs.product_path(run, "student"), network, recipe.network, 4)
    return run


def write_image(path, size, seed=0):
    """Blocks of colours: PNGs of it are small."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = np.random.default_rng(seed).integers(0, 256, (size[1] // 40 + 1, size[0] // 40 + 1, 3), np.uint8)
    Image.fromarray(np.kron(cells, np.ones((40, 40, 1), np.uint8))[: size[1], : size[0]]).save(path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_nineteen(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def small(monkeypatch):
    """Servers whose images are 64x48."""
    for name, server in SERVERS.items():
        monkeypatch.setitem(SERVERS, name, replace(server, size=(64, 48)))


@pytest.fixture
def root(tmp_path):
    """The test images of the three, small and without any labels."""
    for paths in TREES.values():
        for seed, path in enumerate(paths):
            write_image(tmp_path / "data" / path, (64, 48), seed)
    return tmp_path / "data"


def pictures(path):
    """Name -> pixels in an archive; every picture is greyscale, which all readers take as it is."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        read = {}
        for name in archive.namelist():
            with Image.open(io.BytesIO(archive.read(name))) as picture:
                assert picture.mode in ("L", "I;16"), picture.mode
                read[name] = np.array(picture)
    return read


def probabilities(run, path):
    """(19, H, W) float64 of an image, by OpenCV and one softmax over all."""
    image = cv2.imread(str(path))[..., ::-1]
    height, width = image.shape[:2]
    scale = 96 / max(height, width)
    box = (int(width * scale + 0.5), int(height * scale + 0.5))
    shown = torch.from_numpy(cv2.resize(image, box, interpolation=cv2.INTER_LINEAR)).permute(2, 0, 1)[None]
    with torch.no_grad():
        logits = runs.load_network(run).infer(shown.float() / 255)
        logits = torch.nn.functional.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
    return logits[0].double().softmax(0).numpy()


def same_but_for_ties(ids, prob, table):
    decided = np.diff(np.sort(prob, 0)[-2:], axis=0)[0] > 1e-5
    assert decided.mean() > 0.9
    assert (ids == np.array(table)[prob.argmax(0)])[decided].all()


@pytest.mark.parametrize("name", SERVERS)
def test_an_archive_holds_what_its_server_looks_for(run, root, tmp_path, small, said, name):
    out = tmp_path / "new" / f"{name}.zip"
    written = predict(run, (), out, data=f"{name}:test", root=root, submission=name, precision="32")
    assert written == [out] and [path.name for path in out.parent.iterdir()] == [out.name]
    found, stems = pictures(out), [re.split(r"[/.]", path)[-2] for path in TREES[name]]
    names = {
        "cityscapes": {f"{stem}.png" for stem in stems},
        "acdc": {f"labelTrainIds/{stem}.png" for stem in stems},
        "dark-zurich": {
            f"{folder}/{stem}.png"
            for folder in ("labelTrainIds", "labelTrainIds_invalid", "confidence")
            for stem in stems
        },
    }[name]
    assert set(found) == names
    assert said == [f"{len(stems)} images; the test set of {name} has {SERVERS[name].images}"]
    table = LABEL_IDS if name == "cityscapes" else range(19)
    for stem, path in zip(stems, TREES[name], strict=True):
        prob = probabilities(run, root / path)
        for entry, pixels in found.items():
            if stem not in entry:
                continue
            assert pixels.shape == (48, 64)
            if "confidence" in entry:
                assert pixels.dtype == np.uint16
                np.testing.assert_allclose(pixels / 65535, prob.max(0), atol=1e-5)
            else:
                assert pixels.dtype == np.uint8
                same_but_for_ties(pixels, prob, table)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("cityscapes", "mainz_000001_010853*.png"),
        ("acdc", "GOPR0475_frame_000247*.png"),
        ("dark-zurich", "GOPR0364_frame_000001*.png"),
    ],
)
def test_a_server_finds_one_file_by_its_pattern(run, root, tmp_path, small, name, pattern):
    """Patterns of evalPixelLevelSemanticLabeling.py, and of users' scripts for the other two."""
    predict(run, (), tmp_path / "a.zip", data=f"{name}:test", root=root, submission=name)
    entries = list(pictures(tmp_path / "a.zip"))
    for folder in {entry.rpartition("/")[0] for entry in entries}:
        inside = [entry.rpartition("/")[2] for entry in entries if entry.rpartition("/")[0] == folder]
        assert sum(fnmatch(entry, pattern) for entry in inside) == 1


def test_the_same_predictions_are_the_same_archive(run, tmp_path, small):
    images = [write_image(tmp_path / f"berlin_00000{k}_000019_leftImg8bit.png", (64, 48), k) for k in range(3)]
    for name in ("a.zip", "b.zip"):
        predict(run, images, tmp_path / name, submission="cityscapes")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_a_whole_test_set_is_not_remarked_upon(run, tmp_path, small, said, monkeypatch):
    monkeypatch.setitem(SERVERS, "acdc", replace(SERVERS["acdc"], images=2))
    for k in range(2):
        write_image(tmp_path / "in" / f"GOPR0475_frame_00000{k}_rgb_anon.png", (64, 48), k)
    predict(run, [tmp_path / "in"], tmp_path / "a.zip", submission="acdc")
    assert said == [] and len(pictures(tmp_path / "a.zip")) == 2


def test_one_condition_can_be_submitted_alone(run, root, tmp_path, small):
    predict(run, (), tmp_path / "a.zip", data="acdc:test:night", root=root, submission="acdc")
    assert list(pictures(tmp_path / "a.zip")) == ["labelTrainIds/GP010594_frame_000034_rgb_anon.png"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"submission": "kitti"}, RecipeError, r"unknown server 'kitti'; known: acdc, cityscapes, dark-zurich"),
        ({"submission": "cityscape"}, RecipeError, r"did you mean 'cityscapes'"),
        ({"out": "a.png"}, RunError, r"a\.png.*ends in \.zip"),
        ({"out": "there.zip"}, RunError, r"there\.zip is there already"),
        ({"colour": True}, RecipeError, "--colour has no place in a submission"),
        ({"entropy": True}, RecipeError, "--entropy has no place"),
        ({"ids": "label"}, RecipeError, "--ids has no place"),
        ({"inputs": ["small.png"]}, DataError, "small.png: the server finds labels by a name.*berlin_000000_000019"),
        (
            {"inputs": ["foggy_berlin_000000_000019.png"]},
            DataError,
            "foggy_berlin.*: the server finds labels by a name",
        ),
        ({"inputs": ["berlin_000000_000019.png"]}, DataError, "is 64x48, the server's labels are 2048x1024"),
        ({"inputs": ["berlin_000000_000019.png", "berlin_000000_000019_x.png"]}, DataError, "both berlin_000000_0000"),
        ({"inputs": ["empty"]}, DataError, "no images in this folder"),
        ({"inputs": ["bad/bonn_000000_000019.png"]}, DataError, "bonn_000000_000019.png: the file is empty"),
        ({"inputs": [], "data": "cityscapes:test"}, DataError, "no folder .*cityscapes"),
        ({"inputs": [], "data": "streets:test"}, DataError, "streets:test .*: the server finds labels by a name"),
    ],
)
def test_what_no_server_would_take_is_refused_and_nothing_is_written(run, tmp_path, options, error, message):
    stem = "berlin_000000_000019"
    for name in ("small.png", f"{stem}.png", f"{stem}_x.png", f"foggy_{stem}.png"):
        write_image(tmp_path / name, (64, 48))
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "bonn_000000_000019.png").write_bytes(b"")
    (tmp_path / "there.zip").write_bytes(b"mine")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    options = {"inputs": ["berlin_000000_000019.png"], "out": "a.zip", "submission": "cityscapes", **options}
    inputs, out = [tmp_path / each for each in options.pop("inputs")], tmp_path / options.pop("out")
    with pytest.raises(error, match=message) as caught:
        predict(run, inputs, out, root=tmp_path, **options)
    assert "\n" not in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("name", SERVERS)
def test_a_network_of_other_classes_is_refused(tmp_path, name):
    image = write_image(tmp_path / "berlin_000000_000019.png", (64, 48))
    for run, space in (
        (write_run(tmp_path / "eleven"), "camvid-11"),
        (write_nineteen(tmp_path / "sixteen", "synthia-16"), "synthia-16"),
    ):
        with pytest.raises(RecipeError, match=rf"{name}: the network's 1\d classes \(space {space}\) are not.* 19"):
            predict(run, [image], tmp_path / "a.zip", submission=name)
    assert not (tmp_path / "a.zip").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_archive_is_whole_or_not_there(run, tmp_path, small, monkeypatch, error):
    images = [write_image(tmp_path / "in" / f"berlin_00000{k}_000019.png", (64, 48), k) for k in range(3)]
    real, calls = module.submitted, []

    def submitted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise error
        return real(*arguments)

    monkeypatch.setattr(module, "submitted", submitted)
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else RunError):
        predict(run, images, tmp_path / "out" / "a.zip", submission="cityscapes")
    assert len(calls) == 2 and list((tmp_path / "out").iterdir()) == []


def test_two_at_once_do_not_write_one_archive(run, tmp_path, small):
    image = write_image(tmp_path / "berlin_000000_000019.png", (64, 48))
    with alone_in(tmp_path / ".a.zip.parts", "another process writes it"):
        with pytest.raises(RunError, match="another process writes it"):
            predict(run, [image], tmp_path / "a.zip", submission="cityscapes")
        assert not (tmp_path / "a.zip").exists()
    predict(run, [image], tmp_path / "a.zip", submission="cityscapes")
    assert not list(tmp_path.glob(".a*"))


def test_on_the_command_line_and_at_full_size(run, tmp_path, capsys):
    write_image(tmp_path / TREES["acdc"][0], (1920, 1080))
    out = tmp_path / "acdc.zip"
    arguments = ["predict", run, "--data", "acdc:test", "--root", tmp_path, "--submission", "acdc", "--out", out]
    assert main([str(argument) for argument in arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "1 images; the test set of acdc has 2000" in lines and lines[-1] == str(out)
    (label,) = pictures(out).values()
    assert label.shape == (1080, 1920) and label.max() < 19 and len(np.unique(label)) > 3
    assert main([str(argument) for argument in arguments]) == 2
    assert "is there already" in capsys.readouterr().err


def test_label_ids_are_known_for_classes_of_cityscapes_alone():
    sixteen = space_named("synthia-16")
    ours = label_ids(sixteen)
    assert [NINETEEN.classes[LABEL_IDS.index(ours[i])] for i in range(16)] == list(sixteen.classes)
    assert not ours[16:].any()
    with pytest.raises(RecipeError, match="pavement of the space camvid-11 is no class of Cityscapes; use train ids"):
        label_ids(space_named("camvid-11"))


def test_every_servers_table_is_sound():
    for server in SERVERS.values():
        assert re.fullmatch(server.name, server.example)
        assert list(server.folders.values()).count("ids") >= 1
        assert math.isclose(server.size[0] / server.size[1], 2 if server.ids == "label" else 16 / 9)

"""`segda pseudo-label`: the labels it writes, against all pixels in memory and sorted; its score; its table."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segda.cli.main import main
from segda.data.labels.pseudo_labels import PseudoLabels
from segda.data.sets.dataset import DataSet
from segda.data.sets.datasets import open_data
from segda.data.sets.files import FileSet
from segda.data.stream.augment import resize, resized
from segda.data.stream.settings import Augment
from segda.data.stream.stream import Stream
from segda.errors import DataError, RecipeError
from segda.evaluation import look
from segda.evaluation.inference import slide
from segda.networks import NETWORKS
from segda.networks.deeplab import upsample
from segda.recipes.build import build
from segda.reporting.tables import pseudo_labels_table
from segda.run import begin, load_network, load_recipe_of, product_path, save_network
from segda.scene import IGNORE
from small_labels import ALL, DUSK, content, label, stopping, write_place
from small_run import SPACE, write_run

LEVEL = 0.095
"""A confidence that networks with random weights reach here and there."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return write_place(tmp_path_factory.mktemp("place"))


def ids_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.mode == "P"
        return np.array(picture)


def probabilities(place, runs=("run",), data=ALL) -> np.ndarray:
    """(N, C, 36, 48) float64: the mean of the runs, images resized by OpenCV as in all DAFormer recipes."""
    dataset = open_data(data, place / "data", SPACE)
    made = []
    for i in range(len(dataset)):
        box = Augment(resize=(48, 36), crop=None, max_class_share=None, flip=0)
        image = resized(dataset.read(i), box).image.float()[None] / 255
        mean = []
        for run in runs:
            network = load_network(place / run)
            with torch.no_grad():
                seen = [network.infer(image).softmax(1)]
                if run == "other":  # its recipe also looks at the mirrored image
                    seen.append(network.infer(image.flip(-1)).softmax(1).flip(-1))
            mean.append(torch.stack(seen).double().mean(0))
        made.append(torch.stack(mean).mean(0)[0].numpy())
    return np.stack(made)


def by_sorting(prob: np.ndarray, rule: str) -> tuple[np.ndarray, list[float], np.ndarray]:
    """Labels and thresholds by the papers' words, all pixels in memory; and where rounding may decide otherwise."""
    predicted, confidence = prob.argmax(1), prob.max(1)
    entropy = -(prob * np.log(prob)).sum(1) / math.log(prob.shape[1])
    thresholds = []
    for c in range(prob.shape[1]):
        here = predicted == c
        if rule == "entropy-median":
            x = np.sort(entropy[here])
            thresholds.append(max(x[min(round(len(x) / 2), len(x) - 1)], 0.1) if len(x) else 0.1)
        elif rule == "class-median":
            x = np.sort(confidence[here])
            thresholds.append(min(x[min(round(len(x) / 2), len(x) - 1)], 0.9) if len(x) else 0)
        else:
            thresholds.append(LEVEL)
    bound = np.array(thresholds)[predicted]
    dropped = entropy > bound if rule == "entropy-median" else confidence < bound
    close = np.abs((entropy if rule == "entropy-median" else confidence) - bound) < 1e-6
    return np.where(dropped, IGNORE, predicted), thresholds, close


@pytest.mark.parametrize(
    ("rule", "runs"), [("entropy-median", ["run"]), ("entropy-median", ["run", "other"]), ("class-median", ["other"]),
                       ("fixed", ["run"])],
)  # fmt: skip
def test_labels_and_thresholds_are_those_of_sorting_everything(place, tmp_path, rule, runs):
    settings = [f"level={LEVEL}"] if rule == "fixed" else []
    summary = label(place, tmp_path / "out", rule, runs=runs, settings=settings)
    theirs, thresholds, close = by_sorting(probabilities(place, runs), rule)
    names = open_data(ALL, place / "data").names
    ours = np.stack([ids_of(tmp_path / "out" / f"{name}.png") for name in names])
    assert np.array_equal(ours[~close], theirs[~close]) and close.mean() < 0.05
    assert ours.shape == (7, 36, 48) and (ours == IGNORE).any() and (ours != IGNORE).any()
    assert len(np.unique(ours)) > 3
    classes = summary["classes"]
    np.testing.assert_allclose([one["thresholds"][0] for one in classes], thresholds, atol=1e-6)
    assert [one["kept"] for one in classes] == [int((ours == c).sum()) for c in range(11)]
    assert sum(one["pixels"] for one in classes) == summary["pixels"] == ours.size
    assert summary["kept"] == int((ours != IGNORE).sum())


def test_the_summary_tells_how_the_labels_were_made(place, tmp_path):
    summary = label(place, tmp_path / "out", settings=["floor=0.2"], weights="teacher")
    written = json.loads((tmp_path / "out" / "pseudo_labels.json").read_text())
    assert len(written.pop("sha256")) == 64
    assert written == {"format": "segda pseudo-labels 1", **json.loads(json.dumps(summary))}
    assert summary["rule"] == {"name": "entropy-median", "share": 0.5, "floor": 0.2, "images": "all"}
    (member,) = summary["runs"]
    assert member["weights"] == "teacher" and member["step"] == 4 and len(member["sha256"]) == 64
    assert summary["class_names"] == SPACE.classes and summary["data"] == ALL
    for one in summary["classes"]:
        marks = list(one["quantiles"].values())
        assert marks == sorted(marks) and len(marks) == (5 if one["pixels"] else 0)


def test_quantiles_of_scores_are_exact(place, tmp_path):
    summary = label(place, tmp_path / "out")
    prob = probabilities(place)
    entropy = -(prob * np.log(prob)).sum(1) / math.log(11)
    for c, one in enumerate(summary["classes"]):
        x = np.sort(entropy[prob.argmax(1) == c])
        for share, ours in one["quantiles"].items():
            assert ours == pytest.approx(x[min(round(int(share) / 100 * len(x)), len(x) - 1)], abs=1e-6)


def test_training_reads_what_was_written(place, tmp_path):
    label(place, tmp_path / "out", data=DUSK)
    day, dusk = (open_data(f"camvid:train:{part}", place / "data") for part in ("day", "dusk"))
    labels = PseudoLabels.open(tmp_path / "out", dusk, SPACE)
    crop = Augment(resize=None, crop=(32, 32), max_class_share=None, flip=0.5)
    target = Stream(day, dusk, 0, crop, crop, target_labels=labels)[0][1]
    assert target.label.shape == (32, 32) and (target.label != IGNORE).any()


def test_only_labels_summary_and_sheet_are_left(place, tmp_path):
    label(place, tmp_path / "out", data=DUSK)
    assert sorted(content(tmp_path / "out")) == [
        "0001TP_001.png", "0001TP_002.png", "0001TP_003.png", "contact_sheet.jpg", "pseudo_labels.json",
    ]  # fmt: skip
    with Image.open(tmp_path / "out" / "contact_sheet.jpg") as sheet:
        assert sheet.width == 2 * (3 * 320 + 8) + 8


def test_windows_of_images_have_thresholds_of_their_own(place, tmp_path):
    summary = label(place, tmp_path / "out", settings=["images=3"])
    prob, names = probabilities(place), open_data(ALL, place / "data").names
    parts = [by_sorting(prob[first : first + 3], "entropy-median") for first in (0, 3, 6)]
    ours = np.stack([ids_of(tmp_path / "out" / f"{name}.png") for name in names])
    labels, thresholds, close = zip(*parts, strict=True)
    close = np.concatenate(close)
    assert np.array_equal(ours[~close], np.concatenate(labels)[~close]) and close.mean() < 0.05
    theirs = np.array(thresholds).T
    np.testing.assert_allclose([one["thresholds"] for one in summary["classes"]], theirs, atol=1e-6)
    assert summary["windows"] == 3


LOOKS = {
    "as it is": {},
    "stretched": {"resize": [40, 40], "shape": "stretch", "kernel": "bicubic"},
    "padded": {"resize": [40, 40], "shape": "pad", "kernel": "bicubic"},
    "in windows": {"resize": [48, 36], "how": "slide", "window": [32, 32], "stride": [20, 20]},
}


@pytest.mark.parametrize("look", LOOKS)
def test_an_image_is_seen_as_in_evaluation_and_what_was_filled_up_has_no_label(place, tmp_path, look):
    settings = LOOKS[look]
    run = write_run(tmp_path / "run", **settings)
    label(tmp_path, tmp_path / "out", "fixed", data=DUSK, settings=["level=0"], root=place / "data")
    size = {"as it is": (48, 64), "stretched": (40, 40), "padded": (30, 40), "in windows": (36, 48)}[look]
    dusk, network = open_data(DUSK, place / "data"), load_network(run)
    labels = PseudoLabels.open(tmp_path / "out", dusk, SPACE)
    box = {"shape": "keep", "kernel": "bilinear", "resize": None} | settings
    for i in range(3):
        image = resize(dusk.read(i), box["resize"], box["shape"], box["kernel"]).image.float()[None] / 255
        with torch.no_grad():
            logits = slide(network, image, (32, 32), (20, 20)) if look == "in windows" else network.infer(image)
        theirs = logits[0].argmax(0)[: size[0], : size[1]]
        assert (labels.read(i, (48, 64)) == theirs).float().mean() > 0.999  # two classes may be equal but for rounding


def test_true_labels_are_opened_only_on_demand_and_after_all_is_written(place, tmp_path, monkeypatch):
    opened = []

    def seen(self, i, whole=FileSet.label_ids):
        opened.append(len(list(out.glob("*.png"))))
        return whole(self, i)

    monkeypatch.setattr(FileSet, "label_ids", seen)
    out = tmp_path / "blind"
    label(place, out)
    assert not opened
    out = tmp_path / "scored"
    label(place, out, score=True)
    assert opened == [7] * 7
    blind, scored = content(tmp_path / "blind"), content(tmp_path / "scored")
    assert all(blind[name] == scored[name] for name in blind if name != "pseudo_labels.json")


def test_the_score_counts_predicted_and_kept_pixels(place, tmp_path):
    score = label(place, tmp_path / "out", score=True)["score"]
    dataset = open_data(ALL, place / "data", SPACE)
    predicted = probabilities(place).argmax(1)
    truth = np.stack([
        resized(dataset.read(i, label=True), Augment(resize=(48, 36), crop=None, max_class_share=None, flip=0)).label
        for i in range(7)
    ])  # fmt: skip
    kept = np.stack([ids_of(tmp_path / "out" / f"{name}.png") for name in dataset.names])
    known = truth != IGNORE
    assert score["accuracy_predicted"] == pytest.approx((predicted == truth)[known].mean(), abs=1e-3)
    known &= kept != IGNORE
    assert score["accuracy_kept"] == pytest.approx((kept == truth)[known].mean(), abs=1e-3)
    for c, name in enumerate(SPACE.classes):
        here = known & (kept == c)
        ours = score["classes"][name]["accuracy_kept"]
        assert ours == (pytest.approx((truth[here] == c).mean(), abs=0.02) if here.any() else None)
    assert "hidden labels" in score["note"]


def test_the_true_labels_must_be_there_to_score(place, tmp_path):
    shutil.copytree(place / "data", tmp_path / "data")
    shutil.copytree(place / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "data" / "camvid" / "trainannot")
    with pytest.raises(DataError, match="have no label"):
        label(tmp_path, tmp_path / "out", score=True)
    assert not (tmp_path / "out").exists()
    label(tmp_path, tmp_path / "out")


def sizes_of(data: DataSet) -> list[tuple[int, int]]:
    return [data.size(i) for i in range(len(data))]


def test_sizes_come_from_the_headers_and_those_of_drawn_scenes_are_known(place):
    assert sizes_of(open_data(DUSK, place / "data")) == [(48, 64)] * 3
    assert set(sizes_of(open_data("streets:val:fog"))) == {(256, 512)}


def test_the_command_line_prints_a_table_and_says_how_to_go_on(place, tmp_path, capsys, monkeypatch):
    arguments = ["pseudo-label", place / "run", "--rule", "entropy-median", "--data", DUSK, "--root", place / "data",
                 "--out", tmp_path / "out", "--set", "floor=0.3", "--precision", "32", "--score"]  # fmt: skip
    arguments = [str(argument) for argument in arguments]
    with monkeypatch.context() as patch:
        stopping(patch, look, "views", 1)
        assert main(arguments) == 130
    assert "pseudo-label, translate and sweep when called again" in capsys.readouterr().err
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "1 of 3 images are there" in out and "floor 0.3" in out and "hidden labels" in out
    assert all(re.search(rf"{name} ", out) for name in SPACE.classes)
    assert "3 labels in" in out
    assert main(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_the_table_shows_the_range_of_thresholds_and_absent_classes(place, tmp_path):
    summary = label(place, tmp_path / "out", settings=["images=2"])
    made = pseudo_labels_table(summary)
    thresholds = list(made.columns[2].cells)
    assert any(" to " in cell for cell in thresholds)
    for one, median in zip(summary["classes"], made.columns[3].cells, strict=False):
        assert (median == "-") == (one["pixels"] == 0)


# Three networks, as FDA


def run_of_stride_8(run: Path, seed: int) -> Path:
    """A run of DeepLab-v2 with one head and random weights, large enough for sure pixels."""
    write_run(run, resize=[48, 36], softmax="before")
    spec = {"name": "deeplab_v2", "encoder": "small", "weights": "scratch", "multi_level": False}
    recipe = load_recipe_of(run).override(f"network={json.dumps(spec)}")
    shutil.rmtree(run)
    begin(run, recipe)
    torch.manual_seed(seed)
    network = build(NETWORKS, recipe.network, "network", class_names=SPACE.classes)
    images = torch.rand(8, 3, 9, 12).repeat_interleave(4, 2).repeat_interleave(4, 3)  # blocks, as the small CamVid
    with torch.no_grad():
        for _ in range(40):  # statistics of its batch norms
            network.train()(images)
        for branch in network.classifiers["main"]:
            branch.bias.zero_()
        cells = network.eval().low_res_logits(images)
        spread, middle = cells.std((0, 2, 3)), cells.mean((0, 2, 3))
        for branch in network.classifiers["main"]:  # no class is always ahead
            branch.weight.mul_((2 / spread).view(-1, 1, 1, 1))
            branch.bias.sub_(middle * 2 / spread / 4)
    save_network(product_path(run, "student"), network, recipe.network, recipe.steps)
    return run


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A folder of three such runs."""
    folder = tmp_path_factory.mktemp("three")
    for seed, name in enumerate("abc"):
        run_of_stride_8(folder / name, seed)
    return folder


@pytest.mark.parametrize("softmax", ["after", "before"])
def test_labels_of_three_networks_are_their_mean_after_upsampling(place, three, tmp_path, softmax):
    label(three, tmp_path / "out", "quantile", runs="abc", settings=[f"softmax={softmax}"], root=place / "data")
    dataset, made = open_data(ALL, place / "data", SPACE), []
    networks = [load_network(three / name) for name in "abc"]
    for i in range(len(dataset)):
        image = resize(dataset.read(i), (48, 36)).image.float()[None] / 255
        mean = []
        for network in networks:
            with torch.no_grad():
                cells = network.low_res_logits(image).double()
            assert cells.shape[2:] == (5, 7)
            wide = {
                "after": lambda cells: upsample(cells, (36, 48)).softmax(1),
                "before": lambda cells: upsample(cells.softmax(1), (36, 48)),
            }[softmax](cells)
            mean.append(wide[0].numpy())
        made.append(np.mean(mean, 0))
    prob = np.stack(made)
    predicted, confidence = prob.argmax(1), prob.max(1)
    thresholds = np.zeros(len(SPACE.classes))
    for c in range(len(SPACE.classes)):
        x = np.sort(confidence[predicted == c])
        if len(x):
            thresholds[c] = min(x[min(round(0.66 * len(x)), len(x) - 1)], 0.9)
    theirs = np.where(confidence < thresholds[predicted], IGNORE, predicted)
    ours = np.stack([ids_of(tmp_path / "out" / f"{name}.png") for name in dataset.names])
    close = np.abs(confidence - thresholds[predicted]) < 1e-5
    close |= np.diff(np.sort(prob, 1)[:, -2:], axis=1)[:, 0] < 1e-5
    assert close.mean() < 0.05 and np.array_equal(ours[~close], theirs[~close])
    kept = (ours != IGNORE).mean()
    assert 0.3 < kept < 0.9


def test_labels_may_be_of_another_size_than_evaluations(place, tmp_path):
    summary = label(place, tmp_path / "out", resize="64x48")
    assert summary["input"]["resize"] == (64, 48)
    assert ids_of(tmp_path / "out" / f"{open_data(ALL, place / 'data').names[0]}.png").shape == (48, 64)
    same = label(place, tmp_path / "same", resize=(48, 36))
    whole = label(place, tmp_path / "whole")
    assert same["classes"] == whole["classes"] != summary["classes"]


@pytest.mark.parametrize("size", ["32", "x24", "32x0", "32x24x3", "wide"])
def test_a_size_that_is_none_is_refused(place, tmp_path, size):
    with pytest.raises(RecipeError, match=f"--resize {size}: write WIDTHxHEIGHT in pixels, for example 1024x512"):
        label(place, tmp_path / "out", resize=size)


def test_a_run_counts_once(place, tmp_path, capsys):
    again = place / "run" / ".." / "run"
    arguments = ["pseudo-label", place / "run", again, "--rule", "quantile", "--data", ALL, "--out", tmp_path / "out"]
    assert main([*map(str, arguments), "--root", str(place / "data")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"segda: {place / 'run'} is named twice; name it once" and not (tmp_path / "out").exists()


def test_runs_of_other_classes_are_refused_in_one_line(place, tmp_path, capsys):
    other = tmp_path / "other"
    begin(other, load_recipe_of(place / "run").override("data.space=synthia-16"))
    arguments = ["pseudo-label", place / "run", other, "--rule", "quantile", "--data", ALL, "--out", tmp_path / "out"]
    assert main([*map(str, arguments), "--root", str(place / "data")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "predict different classes; use runs of one label space" in line and not (tmp_path / "out").exists()

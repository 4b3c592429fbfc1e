"""A training looks at its target early, in the middle and at the end: what it keeps, and that nothing moves by it."""

import json
import math
import shutil

import numpy as np
import pytest
import torch

from conftest import small_recipe, write_camvid
from resuming import at, content, log_of, same
from segda import run as runs
from segda.commands.report import report
from segda.commands.train import train
from segda.data.files.images import read_image
from segda.data.sets.datasets import open_data
from segda.errors import RunError
from segda.reporting import target
from segda.reporting.pictures import coloured
from segda.reporting.watched import CONFIDENT, read_watched
from segda.training import watching
from segda.training.watching import moments
from small_run import write_run

TARGET = "camvid:train:dusk"


def unlabelled(root):
    """Without the target's labels, and with nothing to be measured on."""
    for label in (root / "camvid" / "trainannot").glob("0001TP*"):
        label.unlink()
    return small_recipe(root).override("evaluate.data=[]", "evaluate.report_images=2")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_camvid(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    """Twenty steps, watched after the second, the tenth and the last."""
    run = tmp_path_factory.mktemp("runs") / "run"
    train(unlabelled(root).override("steps=20", "log_every=2", "save_every=7", "optim.lr=0.01"), run)
    return run


def watched_files(run):
    return {path.name: path.read_bytes() for path in (run / "watched").iterdir()}


def test_moments_are_at_a_tenth_a_half_and_the_end_where_a_line_of_the_log_is_due(camvid):
    def of(steps, log_every):
        return moments(small_recipe(camvid).override(f"steps={steps}", f"log_every={log_every}"))

    assert of(40000, 50) == {4000, 20000, 40000}
    assert of(400, 30) == {60, 210, 400}
    assert of(30, 20) == {20, 30} and of(25, 100) == {25}
    assert of(19, 1) == {19} and of(1, 20) == {1}


def test_each_moment_is_in_the_log_and_in_the_folder(run):
    told = {line["step"]: line["watched/entropy"] for line in log_of(run) if "watched/entropy" in line}
    watched = read_watched(run)
    assert list(told) == [2, 10, 20] == [moment.step for moment in watched.moments]
    assert [moment.entropy for moment in watched.moments] == list(told.values())
    assert watched.data == TARGET and len(watched.names) == 2
    assert sorted(watched_files(run)) == sorted(
        ["watched.json", *(f"{k}{e}.png" for k in (0, 1) for e in ("", *(
            f"-{step:07d}{kind}" for step in (2, 10, 20) for kind in ("", "-H"))))]
    )  # fmt: skip


def test_its_numbers_and_pictures_are_those_of_a_plain_loop(run, root):
    network, data = runs.load_network(run), open_data(TARGET, root)
    entropies, confidences, labels = [], [], []
    for i in (0, 2):
        with torch.no_grad():
            logits = network.infer(data.read(i).image[None] / 255)[0].double()
        prob = logits.softmax(0).numpy()
        entropies.append(-(prob * np.log(prob)).sum(0))
        confidences.append(prob.max(0) > CONFIDENT)
        labels.append(prob.argmax(0))
    last, source = read_watched(run).moments[-1], read_watched(run).source
    assert last.entropy == pytest.approx(np.mean(entropies), rel=1e-5)
    assert last.confident == np.mean(confidences)
    counts = np.bincount(np.ravel(labels), minlength=11)
    assert list(last.shares.values()) == pytest.approx(counts / counts.sum())
    picture = read_image(run / "watched" / "1-0000020.png").permute(1, 2, 0).numpy()
    assert (picture == coloured(labels[1], data.space)).all()
    day = open_data("camvid:train:day", root)
    true = sum(day.class_counts(i)[:-1] for i in range(len(day)))
    assert list(source.values()) == pytest.approx(true / true.sum())


def test_nothing_of_the_training_changes_by_it(run, root, tmp_path):
    recipe = runs.load_recipe_of(run).override("evaluate.report_images=0")
    train(recipe, tmp_path / "blind")
    assert content(tmp_path / "blind") == content(run) and not (tmp_path / "blind" / "watched").exists()
    seen = [{key: value for key, value in line.items() if "watched" not in key} for line in log_of(run)]
    assert seen == log_of(tmp_path / "blind")


class Killed(BaseException):
    """In place of a signal."""


@pytest.mark.parametrize("step", [10, 16])
def test_a_resumed_run_has_watched_the_same(run, tmp_path, step):
    def die():
        raise Killed

    recipe = runs.load_recipe_of(run)
    with pytest.raises(Killed), at(step, die):
        train(recipe, tmp_path / "run")
    train(recipe, tmp_path / "run", resume=True)
    assert same(tmp_path / "run", run) and watched_files(tmp_path / "run") == watched_files(run)


def test_a_run_without_labels_has_a_report_that_shows_its_target(run, root, tmp_path):
    before = tmp_path / "source_only"
    train(unlabelled(root).override("seed=9"), before)
    page = report(run, before, root=root).read_text()
    assert "Nothing was measured" in page and f"The target, {TARGET}" in page and "<h2>Results" not in page
    # Of two images: itself, source-only, three predictions, the last one's entropy.
    assert page.count("<img ") == 2 * 6
    assert '<th scope="col">source_only</th>' in page and "confident pixels" in page
    entropy = read_watched(run).moments[1].entropy
    assert f"<td>{entropy:.2f}</td>" in page and "against the source's labels" in page
    # What was kept is shown also where the images are gone.
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    assert report(moved, root=tmp_path / "nowhere").read_text().count("<img ") == 2 * 5


def test_a_run_without_a_segmentation_network_has_a_report_of_its_curves(root, tmp_path):
    train(small_recipe(root, "cyclegan").override("steps=2", "evaluate.report_images=2"), tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "2 of 2 steps" in page and 'class="charts"' in page
    assert "The target, " not in page and not (tmp_path / "run" / "watched").exists()


def test_a_network_that_was_trained_before_is_looked_at_now(root, tmp_path, said):
    run = write_run(tmp_path / "run", data=[])
    page = report(run, root=root).read_text()
    assert page.count("<img ") == 2 * 3 and "step 4" in page
    page = report(run, root=tmp_path / "nowhere").read_text()
    assert "<img " not in page and any(line.startswith("the target is not shown: ") for line in said)


def test_a_training_ends_well_whose_images_are_too_small_for_its_network(root, tmp_path, said):
    small = ("evaluate.resize=[16, 12]", "steps=1")
    train(unlabelled(root).override(*small), tmp_path / "run")
    assert any("the target was not looked at after step 1: image of 12 x 16 pixels" in line for line in said)
    assert any("the target is not shown: image of 12 x 16 pixels" in line for line in said)
    assert "<img " not in (tmp_path / "run" / "report.html").read_text()


def test_a_training_ends_well_where_memory_does_not_suffice_to_look(root, tmp_path, said, monkeypatch):
    def observe(*_):
        raise torch.OutOfMemoryError("of the device\nand more")

    monkeypatch.setattr(watching, "observe", observe)
    monkeypatch.setattr(target, "observe", observe)
    train(unlabelled(root).override("steps=1"), tmp_path / "run")
    assert "the target was not looked at after step 1: of the device" in said
    assert (tmp_path / "run" / "report.html").exists()


def test_a_fault_of_the_code_is_not_hidden(root, tmp_path, monkeypatch):
    def observe(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(watching, "observe", observe)
    with pytest.raises(ZeroDivisionError):
        train(unlabelled(root).override("steps=1"), tmp_path / "run")


def test_an_image_that_cannot_be_read_is_left_out_and_named(tmp_path, said):
    root = write_camvid(tmp_path / "data")
    recipe = unlabelled(root).override("steps=1", "data.on_bad_image=skip")
    (root / "camvid" / "train" / "0001TP_003.png").write_bytes(b"no picture")
    train(recipe, tmp_path / "run")
    assert read_watched(tmp_path / "run").names == ("0001TP_001",)
    assert any(line.startswith("not watched: ") and "0001TP_003" in line for line in said)


def test_a_damaged_file_is_refused_with_the_way_out(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "watched" / "watched.json"
    tree = json.loads(path.read_text())
    tree["moments"][0]["entropy"] = math.pi
    path.write_text(json.dumps(tree))
    with pytest.raises(RunError, match=r"watched.json cannot be read .*remove it to go on without it"):
        report(tmp_path / "run")
    shutil.copytree(run, tmp_path / "other")
    (tmp_path / "other" / "watched" / "0.png").write_bytes(b"")
    with pytest.raises(RunError, match=r"0.png cannot be shown .*remove"):
        report(tmp_path / "other")


def test_overwriting_removes_what_was_watched_and_nothing_else(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "watched" / "mine.png").write_bytes(b"mine")
    recipe = runs.load_recipe_of(run).override("steps=1", "evaluate.report_images=0")
    train(recipe, tmp_path / "run", overwrite=True)
    assert [path.name for path in (tmp_path / "run" / "watched").iterdir()] == ["mine.png"]

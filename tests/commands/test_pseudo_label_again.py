"""`segda pseudo-label` when things go wrong: interruptions, bad input, a full disk; and with several processes."""

from __future__ import annotations

import math
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segda.cli.main import main
from segda.data.labels.pseudo_labels import PseudoLabels
from segda.data.sets.datasets import open_data
from segda.errors import DataError, RecipeError, RunError, WeightsError
from segda.evaluation import look
from segda.pseudo_labelling import job
from segda.pseudo_labelling import label as labelling
from small_labels import ALL, DUSK, NAMES, Stop, content, label, stopping, write_place
from small_run import SPACE, write_run


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return write_place(tmp_path_factory.mktemp("place"))


@pytest.mark.parametrize(("name", "after"), [("views", 3), ("write_label", 2), ("order_statistics", 0), ("views", 0)])
def test_an_interrupted_call_goes_on_where_it_stopped(place, tmp_path, monkeypatch, said, name, after):
    label(place, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stopping(patch, look if name == "views" else labelling, name, after)
        with pytest.raises(Stop):
            label(place, tmp_path / "out")
    assert not (tmp_path / "out" / "pseudo_labels.json").exists()
    assert not list((tmp_path / "out").rglob("*.partial"))
    with pytest.raises(DataError, match="not yet all of them"):
        PseudoLabels.open(tmp_path / "out", open_data(ALL, place / "data"), SPACE)
    said.clear()
    calls = stopping(monkeypatch, look, "views", 7)
    label(place, tmp_path / "out")
    assert len(calls) == (7 - after if name == "views" else 0)
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert f"going on: {7 - len(calls)} of 7" in said[1]


def interrupted(place, out, monkeypatch, after=3, **given):
    with monkeypatch.context() as patch:
        stopping(patch, look, "views", after)
        with pytest.raises(Stop):
            label(place, out, **given)


def test_another_setting_of_the_rule_goes_on_with_the_same_predictions(place, tmp_path, monkeypatch):
    interrupted(place, tmp_path / "out", monkeypatch)
    calls = stopping(monkeypatch, look, "views", 4)
    label(place, tmp_path / "out", settings=["share=0.3"])
    assert len(calls) == 4
    monkeypatch.undo()
    label(place, tmp_path / "whole", settings=["share=0.3"])
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changed", "given"),
    [
        ("score", {"rule": "fixed"}),
        ("data, images", {"data": DUSK}),
        ("networks", {"runs": ["other"]}),
        ("networks", {"weights": "teacher"}),
    ],
)
def test_an_interrupted_call_is_not_mixed_with_another(place, tmp_path, monkeypatch, changed, given):
    interrupted(place, tmp_path / "out", monkeypatch)
    before = content(tmp_path / "out")
    with pytest.raises(RunError, match=f"interrupted call with other {changed}; .*--overwrite"):
        label(place, tmp_path / "out", **given)
    assert content(tmp_path / "out") == before
    label(place, tmp_path / "whole", **given)
    label(place, tmp_path / "out", overwrite=True, **given)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_changed_image_and_a_damaged_scratch_file_are_predicted_anew(place, tmp_path, monkeypatch):
    shutil.copytree(place / "data", tmp_path / "data")
    shutil.copytree(place / "run", tmp_path / "run")
    interrupted(tmp_path, tmp_path / "out", monkeypatch, after=5)
    image = tmp_path / "data" / "camvid" / "train" / f"{open_data(ALL, tmp_path / 'data').names[0]}.png"
    Image.fromarray(255 - np.array(Image.open(image))).save(image)
    damaged = sorted((tmp_path / "out" / ".scratch").glob("000001-*.part"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    calls = stopping(monkeypatch, look, "views", 9)
    label(tmp_path, tmp_path / "out")
    assert len(calls) == 4
    monkeypatch.undo()
    label(tmp_path, tmp_path / "whole")
    assert content(tmp_path / "out")[f"{image.stem}.png"] == content(tmp_path / "whole")[f"{image.stem}.png"]


def test_finished_labels_are_kept_unless_asked_and_then_wholly_replaced(place, tmp_path):
    label(place, tmp_path / "out")
    before = content(tmp_path / "out")
    with pytest.raises(RunError, match="already holds pseudo-labels; use --overwrite"):
        label(place, tmp_path / "out", data=DUSK)
    assert content(tmp_path / "out") == before
    label(place, tmp_path / "out", data=DUSK, overwrite=True)
    assert sorted(path.stem for path in (tmp_path / "out").glob("*.png")) == NAMES


def test_files_that_segda_did_not_write_stay(place, tmp_path, said):
    label(place, tmp_path / "out")
    label(place, tmp_path / "whole", data=DUSK)
    mine = {"mine.png": b"mine", "notes.txt": b"mine", ".scratch/mine": b"mine"}
    (tmp_path / "out" / ".scratch").mkdir()
    for name, text in mine.items():
        (tmp_path / "out" / name).write_bytes(text)
    label(place, tmp_path / "out", data=DUSK, overwrite=True)
    del mine[".scratch/mine"]
    assert content(tmp_path / "out") == content(tmp_path / "whole") | mine
    assert f"{tmp_path / 'out'}: kept what segda did not write: mine.png, notes.txt" in said


def test_a_folder_of_something_else_is_not_touched(place, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"mine")
    (tmp_path / "file").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(RunError, match="is not a folder of pseudo-labels"):
            label(place, tmp_path / "photos", overwrite=overwrite)
        with pytest.raises(RunError, match="is a file"):
            label(place, tmp_path / "file", overwrite=overwrite)
    assert content(tmp_path) == {"photos/a.png": b"mine", "file": b"mine"}


def test_a_disk_without_room_is_said_before_the_start(place, tmp_path, monkeypatch, said):
    usage = namedtuple("usage", ["total", "used", "free"])
    pixels = 7 * 36 * 48
    monkeypatch.setattr(job.shutil, "disk_usage", lambda folder: usage(0, 0, 6 * pixels - 1))
    with pytest.raises(RunError, match="no room"):
        label(place, tmp_path / "out")
    assert "7 images of camvid:train: scratch files of 0 MB" in said[0] and not (tmp_path / "out").exists()
    monkeypatch.setattr(job.shutil, "disk_usage", lambda folder: usage(0, 0, 6 * pixels))
    label(place, tmp_path / "out")


def test_a_disk_that_fills_up_leaves_nothing_half_written(place, tmp_path, monkeypatch):
    def full(path, *_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(labelling.Scratch, "path", lambda self, i: tmp_path / "out" / ".scratch" / "no" / f"{i}.part")
    with pytest.raises(RunError, match=r"cannot write .*0\.part"):
        label(place, tmp_path / "out")
    monkeypatch.undo()
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RunError, match="No space left on device"):
        label(place, tmp_path / "out", overwrite=True)
    assert not list((tmp_path / "out").rglob("*.part*"))


def test_an_image_that_cannot_be_read_is_named_and_the_call_goes_on_when_it_can(place, tmp_path):
    shutil.copytree(place / "data", tmp_path / "data")
    shutil.copytree(place / "run", tmp_path / "run")
    image = tmp_path / "data" / "camvid" / "train" / f"{NAMES[1]}.png"
    good = image.read_bytes()
    for bad in (good[:100], b"", b"text"):  # the first has a header
        image.write_bytes(bad)
        with pytest.raises(DataError, match=NAMES[1]):
            label(tmp_path, tmp_path / "out")
    image.write_bytes(good)
    label(tmp_path, tmp_path / "out")
    label(place, tmp_path / "whole")
    names = [name for name in content(tmp_path / "whole") if name.endswith("png")]
    assert all(content(tmp_path / "out")[name] == content(tmp_path / "whole")[name] for name in names)


def test_a_prediction_that_is_not_finite_is_refused(place, tmp_path, monkeypatch):
    def broken(*given):
        label, score = labelling_most_probable(*given)
        return label, score * math.nan

    labelling_most_probable = labelling.most_probable
    monkeypatch.setattr(labelling, "most_probable", broken)
    with pytest.raises(RunError, match=r"the prediction for .* is not finite; use --precision 32"):
        label(place, tmp_path / "out")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"runs": []}, "no RUN"),
        ({"runs": ["nowhere"]}, "nowhere is not a run folder"),
        ({"runs": ["other"], "weights": "teacher"}, "has no teacher"),
        ({"runs": ["run", "larger"]}, r"larger and .*run differ in evaluate.resize \(\(64, 48\) and \(48, 36\)\)"),
        ({"rule": "entropy"}, "rule.name: unknown 'entropy'"),
        ({"settings": ["flor=1"]}, "did you mean 'floor'"),
        ({"data": "camvid:trian"}, "did you mean 'train'"),
        ({"data": "camvid:train:night"}, "no condition 'night'"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(place, tmp_path, given, message):
    if given.get("runs") == ["run", "larger"] and not (place / "larger").exists():
        write_run(place / "larger", resize=[64, 48])
    with pytest.raises((RecipeError, RunError, WeightsError), match=message) as caught:
        label(place, tmp_path / "out", **given)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_two_processes_write_the_bytes_of_one(place, tmp_path, forks):
    arguments = ["pseudo-label", place / "run", place / "other", "--rule", "entropy-median", "--data", ALL, "--root",
                 place / "data", "--precision", "32", "--score", "--set", "images=3", "--out"]  # fmt: skip
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = forks.run(*torchrun, "-m", "segda", *arguments, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("7 labels in") == 1 and done.stdout.count("scratch files of") == 1
    assert main([*map(str, arguments), str(tmp_path / "one")]) == 0
    assert content(tmp_path / "two") == content(tmp_path / "one")

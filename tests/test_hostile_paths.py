"""What stands where a file should: pipes that nobody writes to, which to open is to wait for ever; endless names."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import RECIPE, write_camvid
from segda.cli.main import main
from segda.data.files.archives import open_file, read_bytes
from segda.data.sets.class_statistics import class_statistics
from segda.data.sets.datasets import open_data
from segda.data.weather.stereo import read_camera, read_disparity
from segda.errors import DataError
from segda.ground.paths import regular
from small_run import DUSK, write_run

LONG = "x" * 300
PATIENCE = 60
"""Seconds until a command that hangs is an error."""


class Hangs(BaseException):
    pass


@pytest.fixture(autouse=True)
def impatient() -> Iterator[None]:
    def end(*_):
        raise Hangs

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    write_camvid(tmp_path / "data")
    write_run(tmp_path / "run", data=[])
    (tmp_path / "mine.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(key: str, value: object) -> list:
    return ["train", "mine.yaml", "--root", "data", "--out", "made", "--set", f"{key}={value}"]


AT = ["--root", "data"]
GIVEN = {
    "recipe": ["train", "IT.yaml"],
    "blocks": ["train", "methods/advent", "--data", "IT.yaml"],
    "shown": ["recipe", "IT.yaml"],
    "sweep": ["sweep", "IT.yaml"],
    "weights": train("network.weights", "IT.safetensors"),
    "pickle": train("network.weights", "IT.pth"),
    "start": train("start", "IT.safetensors"),
    "labels": [*train("data.target.labels", "IT"), "--set", "method.name=esl"],
    "translated": train("data.source.images", "IT"),
    "translator": ["translate", "IT", "--data", DUSK, "--out", "made", *AT],
    "pairs": train("data.reference", "{set: 'camvid:train:day', pairs: IT.csv}"),
    "folder": train("data.source.set", "IT.yaml:train"),
    "run": ["evaluate", "IT", "--data", DUSK, *AT],
    "image": ["predict", "run", "IT.png", "--out", "made"],
    "bitmap": ["predict", "run", "IT.bmp", "--out", "made"],
    "images": ["predict", "run", "IT", "--out", "made"],
    "of runs": ["pseudo-label", "IT", "--data", DUSK, "--rule", "fixed", "--out", "made", *AT],
    "reports": ["compare", "IT.json", "run"],
    "reported": ["report", "IT"],
    "theirs": ["convert", "IT.pth", "--out", "made.safetensors"],
    "theirs too": ["convert", "IT.safetensors", "--out", "made.safetensors"],
    "ours": ["convert", "IT.safetensors", "--to", "daformer", "--out", "made.pth"],
    "weather": ["make-fog", "IT", "--beta", "0.01", "--out", "made"],
}
WRITTEN = {
    "trained": [*train("steps", 1), "--out", "IT"],
    "predicted": ["predict", "run", "data/camvid/test", "--out", "IT"],
    "labelled": ["pseudo-label", "run", "--data", DUSK, "--rule", "fixed", "--out", "IT", *AT],
    "drawn": ["draw", "streets:train:fog", "--count", "1", "--out", "IT"],
    "written": ["recipe", "mine.yaml", "--to", "IT.yaml"],
    "converted": ["convert", "run", "--to", "daformer", "--out", "IT.pth"],
    "ensemble": ["evaluate", "run", "run", "--ensemble", "logits", "--data", DUSK, *AT, "--out", "IT.json"],
}


def refused(capsys, words: list, code: int = 2) -> str:
    capsys.readouterr()
    assert main([*map(str, words)]) == code
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert line.startswith("segda: ") and "Traceback" not in out
    return line


@pytest.mark.parametrize("words", GIVEN.values(), ids=GIVEN)
def test_a_pipe_in_place_of_what_is_read_is_refused_at_once(words, place, capsys):
    for word in words:
        for name in [part.strip("'{}") for part in str(word).replace("=", " ").replace(":", " ").split()]:
            if Path(name).stem == "IT" and not Path(name).exists():
                os.mkfifo(name)
    refused(capsys, words)
    assert not (place / "made").exists()


@pytest.mark.parametrize("words", (GIVEN | WRITTEN).values(), ids=GIVEN | WRITTEN)
def test_a_name_that_no_file_can_have_is_refused_in_a_line(words, place, capsys):
    refused(capsys, [str(word).replace("IT", LONG) for word in words])
    assert not (place / "made").exists()


IN_A_RUN = {
    "recipe.yaml": ["evaluate", "run", "--data", DUSK, *AT],
    "network.safetensors": ["predict", "run", "data/camvid/test", "--out", "made"],
    "last.pt": ["train", "mine.yaml", *AT, "--out", "run", "--resume"],
    "log.jsonl": ["report", "run"],
    "environment.json": ["report", "run"],
    "reports/camvid-test-dusk.json": ["compare", "run"],
    "snapshots/network-0000002.safetensors": ["evaluate", "run", "--data", DUSK, *AT, "--all-checkpoints"],
}


@pytest.mark.parametrize("file", IN_A_RUN)
def test_a_pipe_in_a_run_folder_is_refused_at_once(file, place, capsys):
    if file in ("log.jsonl", "environment.json"):
        assert main(["evaluate", "run", "--data", DUSK, *AT]) == 0
    path = place / "run" / file
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)
    refused(capsys, IN_A_RUN[file])


@pytest.mark.parametrize("file", ["train/0006R0_f01.png", "trainannot/0006R0_f01.png"])
def test_a_pipe_in_a_data_set_is_a_damaged_file(file, place, capsys):
    path = place / "data" / "camvid" / file
    path.unlink()
    os.mkfifo(path)
    assert str(Path("data/camvid") / file) in refused(capsys, [*train("steps", 4), "--set", "evaluate.data=[]"])
    assert main(["check-data", "camvid:train", *AT]) == 1


def test_pipes_in_other_files_are_no_files(tmp_path, camvid, warned):
    pipe = tmp_path / "pipe.zip"
    os.mkfifo(pipe)
    for read in (regular, read_bytes, open_file):
        with pytest.raises(OSError, match="a pipe"):
            read(pipe)
    for read in (lambda: read_camera(pipe), lambda: read_disparity(pipe, (4, 4))):
        with pytest.raises(DataError):
            read()
    data = open_data("camvid:train", camvid)
    ours, keep = class_statistics(data, tmp_path), next(tmp_path.rglob("*.npz"))
    keep.unlink()
    os.mkfifo(keep)
    assert (class_statistics(data, tmp_path) == ours).all() and "a pipe" in "".join(warned)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/stdin"])
def test_a_device_is_no_file(device):
    if Path(device).is_file():
        pytest.skip("standard input is a file here")
    with pytest.raises(OSError, match="a device"):
        regular(Path(device))


def test_a_file_and_a_link_to_one_are_files(tmp_path):
    (tmp_path / "file").write_text("here")
    (tmp_path / "link").symlink_to("file")
    shutil.copy(regular(tmp_path / "link"), tmp_path / "copy")
    for name in ("file", "link", "copy"):
        assert read_bytes(tmp_path / name) == b"here"

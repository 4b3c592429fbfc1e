"""`segda adapt`: its predictions, its table, and that labels are read with --score alone."""

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from conftest import write_camvid
from segda.cli.main import main
from segda.commands.adapt import adapt
from segda.commands.evaluate import evaluate
from segda.errors import DataError, RecipeError, RunError
from segda.ground.choices import OnlineName
from segda.ground.safe_yaml import read_yaml
from segda.online import ONLINE
from small_run import DUSK, write_run


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_camvid(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "run", teacher=True)


def test_predictions_are_written_without_a_label_and_the_run_stays_as_it_is(run, root, tmp_path):
    shutil.copytree(root, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "camvid" / "testannot")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    found = adapt(run, DUSK, "batchnorm", tmp_path / "out", root=tmp_path / "data", precision="32")
    assert found.images == 3 and found.before is None and found.online is None
    files = sorted((tmp_path / "out").rglob("*.png"))
    assert [path.name for path in files] == ["0001TP_101.png", "0001TP_102.png", "0001TP_103.png"]
    assert all(np.array(Image.open(path)).shape == (48, 64) for path in files)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    # Called again it replaces its own files by the same ones.
    first = [path.read_bytes() for path in files]
    adapt(run, DUSK, "batchnorm", tmp_path / "out", root=root, precision="32")
    assert [path.read_bytes() for path in files] == first
    with pytest.raises(DataError):
        adapt(run, DUSK, "batchnorm", root=tmp_path / "data", score=True)


def test_the_score_is_of_the_written_predictions_and_before_it_evaluates(run, root, tmp_path):
    for weights in ("student", "teacher"):
        found = adapt(run, DUSK, "tent", tmp_path / weights, ["lr=0.01"], root=root, weights=weights, score=True,
                      precision="32")  # fmt: skip
        (plain,) = evaluate(run, [DUSK], root, weights=[weights], precision="32")
        assert (found.before.counts == plain.counts).all() and (found.online.counts != plain.counts).any()
        right = 0
        for path in sorted((tmp_path / weights).rglob("*.png")):
            truth = np.array(Image.open(root / "camvid" / "testannot" / path.name))
            predicted = np.array(Image.open(path))
            right += int((truth == predicted)[truth < 11].sum())
        assert found.online.counts.diagonal()[:11].sum() == right


def test_each_method_has_its_settings_and_its_word():
    settings = read_yaml(Path(str(files("segda.online") / "online.yaml")))
    assert list(settings) == list(ONLINE) == list(get_args(OnlineName))


def test_the_command_prints_a_table_or_json(run, root, tmp_path, capsys):
    arguments = ["adapt", str(run), "--data", DUSK, "--root", str(root), "--score"]
    assert main([*arguments, "--method", "batchnorm", "--episodic"]) == 0
    out = capsys.readouterr().out
    assert "batchnorm, anew with each image" in out and "difference" in out and "mIoU" in out
    assert main([*arguments, "--method", "batchnorm", "--set", "prior=4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["method"] == {"name": "batchnorm", "prior": 4.0} and told["episodic"] is False
    assert told["online"]["miou"] is not None and len(told["before"]["iou"]) == 11
    assert main([*arguments[:-1], "--method", "tent", "--out", str(tmp_path / "out")]) == 0
    assert "3 files in" in capsys.readouterr().out


def test_what_cannot_be_is_refused_before_anything_is_written(run, root, tmp_path, capsys):
    for more, words in (
        ({"method": "tent"}, "nothing to do: give --out"),
        ({"method": "tent", "score": True, "precision": "16"}, "--precision 16"),
        (
            {"method": "tent", "score": True, "settings": ["speed=1"]},
            "tent has no setting .speed.; known: betas, lr, steps",
        ),
        ({"method": "cotta", "score": True, "settings": ["restore=2"]}, "restore: must be from 0 to 1"),
        ({"method": "tent", "out": tmp_path / "out", "settings": ["lr=fast"]}, "lr"),
    ):
        with pytest.raises(RecipeError, match=words):
            adapt(run, DUSK, root=root, **more)
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    other = tmp_path / "mine" / "0001TP_101.png"
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(other)
    with pytest.raises(RunError, match="segda predict did not write it"):
        adapt(run, DUSK, "tent", tmp_path / "mine", root=root)
    assert main(["adapt", str(run), "--data", DUSK, "--method", "guess", "--score"]) == 2
    assert "guess" in capsys.readouterr().err

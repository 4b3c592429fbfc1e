"""`--logger`: trackers are told the numbers of the log, a resumed run goes on there, and no run needs one.

The trackers themselves are stand-ins that keep what they are told; TensorBoard's own files are read where it is
installed.
"""

import io
import os
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import get_args

import numpy as np
import pytest
from PIL import Image

import processes
from conftest import small_recipe
from resuming import content
from segda import run as runs
from segda.cli.main import main
from segda.commands.train import train
from segda.errors import RecipeError, RunFailure
from segda.ground.choices import LoggerName
from segda.reporting import watched
from segda.reporting.watched import read_watched
from segda.training import loggers
from segda.training.loggers import LOGGERS, numbers_of

pytestmark = pytest.mark.usefixtures("no_page")


class Told:
    """All that stand-ins were told: (numbers, step), and the pictures by name and step."""

    def __init__(self):
        self.lines, self.begun, self.ended, self.pictures = [], [], 0, {}

    def show(self, name, picture, step):
        assert picture.dtype == np.uint8 and picture.shape[2] == 3
        self.pictures[name, step] = picture

    def numbers(self):
        found = {}
        for numbers, step in self.lines:
            found.setdefault(step, {}).update(numbers)
        return found


@pytest.fixture
def told(monkeypatch):
    """Stand-ins for the three packages."""
    told = Told()

    def end():
        told.ended += 1

    class Writer:
        def __init__(self, folder, purge_step):
            told.begun.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            told.lines.append(({name: value}, step))

        def add_image(self, name, picture, step, dataformats):
            assert dataformats == "HWC"
            told.show(name, picture, step)

        def add_text(self, name, text, step):
            assert "steps: " in text

        def close(self):
            end()

    class Picture:
        """wandb.Image."""

        def __init__(self, picture):
            self.picture = picture

    def log(content, step):
        for name, one in content.items():
            if isinstance(one, Picture):
                told.show(name, one.picture, step)
        numbers = {name: one for name, one in content.items() if not isinstance(one, Picture)}
        if numbers:
            told.lines.append((numbers, step))

    def init(*, dir, name, config, id, resume):
        told.begun.append((name, id))
        assert config["steps"] in (4, 20) and resume == "allow"
        return SimpleNamespace(id=id or "w1", log=log, finish=end)

    def start_run(*, run_id, run_name):
        told.begun.append((run_name, run_id))
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or "m1"))

    packages = {
        "torch.utils.tensorboard": {"SummaryWriter": Writer},
        "tensorboard": {},
        "wandb": {"init": init, "Image": Picture},
        "mlflow": {
            "start_run": start_run,
            "log_dict": lambda tree, name: None,
            "log_image": lambda picture, key, step: told.show(key, picture, step),
            "log_metrics": lambda numbers, step: told.lines.append((numbers, step)),
            "end_run": end,
        },
    }
    for name, offered in packages.items():
        module = ModuleType(name)
        for key, value in offered.items():
            setattr(module, key, value)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(loggers, "find_spec", lambda name: name in packages or None)
    return told


@pytest.mark.parametrize("name", LOGGERS)
def test_a_tracker_is_told_the_numbers_of_the_log(name, told, camvid, tmp_path):
    recipe = small_recipe(camvid).override("evaluate.every=2")
    train(recipe, tmp_path / "plain")
    train(recipe.override(f"logger={name}"), tmp_path / "run")
    expected = {}
    for line in runs.read_log(tmp_path / "run"):
        expected.setdefault(line["step"], {}).update(numbers_of(line))
    shown = expected
    if name == "mlflow":  # whose store knows no names with slashes
        shown = {step: {re.sub("[/:]", ".", key): one for key, one in of.items()} for step, of in expected.items()}
    assert told.numbers() == shown and told.ended == 1
    assert {"source", "seconds", "lr/student/encoder"} <= expected[1].keys()
    assert "mIoU/camvid:test:dusk/student" in expected[2] and "mIoU/camvid:test:dusk/student" in expected[4]
    assert content(tmp_path / "run") == content(tmp_path / "plain")


@pytest.mark.parametrize("name", LOGGERS)
def test_a_tracker_is_shown_what_the_run_saw_of_its_target_when_it_saw_it(name, told, camvid, tmp_path):
    settings = ("steps=20", "log_every=2", "evaluate.report_images=2", "evaluate.data=[]")
    run = tmp_path / "run"
    train(small_recipe(camvid).override(*settings, f"logger={name}"), run)
    kept = {}
    for k in (0, 1):
        for step in (2, 10, 20):
            kept[f"watched/{k}/image", step] = next(watched.pictures(run, k))
            for what, picture in zip(("prediction", "entropy"), watched.pictures(run, k, step), strict=True):
                kept[f"watched/{k}/{what}", step] = picture
    assert told.pictures.keys() == kept.keys() and len(kept) == 18
    for at, picture in kept.items():
        assert (told.pictures[at] == picture).all(), at
    assert (kept["watched/0/prediction", 2] != kept["watched/0/prediction", 20]).any()


def test_one_that_cannot_take_a_picture_is_told_no_more_and_ends_nothing(told, camvid, tmp_path, said):
    del sys.modules["wandb"].Image
    recipe = small_recipe(camvid).override("evaluate.report_images=1", "evaluate.data=[]", "logger=wandb", "steps=20")
    train(recipe, tmp_path / "run")
    assert len(list(runs.read_log(tmp_path / "run"))) == 20 and len(read_watched(tmp_path / "run").moments) == 3
    assert [line for line in said if line.startswith("logger wandb: ")] == [
        "logger wandb: module 'wandb' has no attribute 'Image'; it is told no more, log.jsonl has all"
    ]


def test_one_that_fails_on_the_way_is_told_no_more_and_ends_nothing(told, camvid, tmp_path, said):
    def fail(numbers, step):
        told.lines.append((numbers, step))
        raise OSError("disk full")

    sys.modules["mlflow"].log_metrics = fail
    train(small_recipe(camvid).override("logger=mlflow", "evaluate.data=[]"), tmp_path / "run")
    assert [step for _, step in told.lines] == [1] and len(list(runs.read_log(tmp_path / "run"))) == 4
    assert said.count("logger mlflow: disk full; it is told no more, log.jsonl has all") == 1


@pytest.mark.parametrize(("name", "begun"), [
    ("tensorboard", [1, 3]), ("wandb", [None, "w1"]), ("mlflow", [None, "m1"]),
])  # fmt: skip
def test_a_run_that_goes_on_goes_on_there(name, begun, told, camvid, tmp_path, monkeypatch):
    recipe = small_recipe(camvid).override("save_every=2", "evaluate.data=[]", f"logger={name}")

    class Killed(BaseException):
        pass

    append = runs.append_log

    def die(run, line):
        if line["step"] == 3:
            raise Killed
        append(run, line)

    monkeypatch.setattr(runs, "append_log", die)
    with pytest.raises(Killed):
        train(recipe, tmp_path / "run")
    monkeypatch.setattr(runs, "append_log", append)
    train(recipe, tmp_path / "run", resume=True)
    assert [known for _, known in told.begun] == begun and told.ended == 2
    assert sorted(told.numbers()) == [1, 2, 3, 4]


def test_each_tracker_has_its_word_and_its_extra():
    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert list(LOGGERS) == list(get_args(LoggerName)) and LOGGERS.keys() <= extras.keys()


def test_histograms_and_nulls_are_left_out():
    line = {"step": 3, "source": 0.5, "histogram/source": [1.0, 2.0], "none": None}
    assert numbers_of(line) == {"source": 0.5}
    assert numbers_of({"step": 3, "evaluation": "a:b", "student": 0.25, "teacher": None}) == {"mIoU/a:b/student": 0.25}


@pytest.mark.parametrize("name", LOGGERS)
def test_one_that_is_not_installed_is_said_before_the_folder_is_touched(name, camvid, tmp_path, monkeypatch):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=rf"logger: {name} is not installed; pip install 'segda\[{name}\]'"):
        train(small_recipe(camvid).override(f"logger={name}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_that_cannot_be_reached_is_one_line(told, camvid, tmp_path, monkeypatch):
    def init(**_):
        raise OSError("no network\nat all")

    monkeypatch.setattr(sys.modules["wandb"], "init", init)
    with pytest.raises(RunFailure, match="logger wandb: no network at all; see its own settings"):
        train(small_recipe(camvid).override("logger=wandb"), tmp_path / "run")


def test_the_command_line_takes_it_and_an_unknown_one_is_named(camvid, tmp_path, capsys):
    assert main(["train", "source_only_camvid", "--logger", "guess", "--out", str(tmp_path / "run")]) == 2
    assert "guess" in capsys.readouterr().err
    with pytest.raises(RecipeError, match="logger"):
        small_recipe(camvid).override("logger=guess")


def test_tensorboard_reads_what_was_told(camvid, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(small_recipe(camvid).override("evaluate.data=[]", "logger=tensorboard"), tmp_path / "run")
    read = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    ours = [(event.step, event.value) for event in read.Scalars("source")]
    theirs = [(line["step"], line["source"]) for line in runs.read_log(tmp_path / "run")]
    assert ours == [(step, pytest.approx(value)) for step, value in theirs]


def test_tensorboard_shows_the_pictures_of_the_target_at_their_steps(camvid, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import IMAGES, EventAccumulator

    settings = ("evaluate.report_images=2", "evaluate.data=[]", "steps=20", "log_every=2", "logger=tensorboard")
    run = tmp_path / "run"
    train(small_recipe(camvid).override(*settings), run)
    read = EventAccumulator(str(run / "tensorboard"), {IMAGES: 0}).Reload()
    names = [f"watched/{k}/{what}" for k in (0, 1) for what in ("image", "prediction", "entropy")]
    assert sorted(read.Tags()["images"]) == sorted(names)
    for k in (0, 1):
        for what, ending in (("prediction", ""), ("entropy", "-H")):
            events = read.Images(f"watched/{k}/{what}")
            assert [event.step for event in events] == [2, 10, 20]
            for event in events:
                ours = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
                theirs = np.asarray(Image.open(run / "watched" / f"{k}-{event.step:07d}{ending}.png").convert("RGB"))
                assert (ours == theirs).all()


ALONE = """
import sys
from segda.commands.train import train
from segda.recipes.recipe import load_recipe
train(load_recipe(sys.argv[1]), sys.argv[2])
"""


def test_weights_and_biases_keeps_the_pictures_of_the_target(camvid, tmp_path):
    pytest.importorskip("wandb")
    recipe = small_recipe(camvid).override("evaluate.report_images=1", "evaluate.data=[]", "logger=wandb")
    (tmp_path / "mine.yaml").write_text(recipe.to_yaml())
    environment = os.environ | {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    words = [sys.executable, "-c", ALONE, tmp_path / "mine.yaml", tmp_path / "run"]  # it leaves a process of its own
    done = processes.run(words, env=environment)
    assert done.returncode == 0, done.stderr
    kept = list((tmp_path / "run" / "wandb").glob("offline-run-*/files/media/images/watched/0/*.png"))
    assert sorted(path.name.partition("_")[0] for path in kept) == ["entropy", "image", "prediction"]
    (ours,) = (np.asarray(Image.open(path)) for path in kept if path.name.startswith("prediction"))
    assert (ours == np.asarray(Image.open(tmp_path / "run" / "watched" / "0-0000004.png").convert("RGB"))).all()


def test_mlflow_keeps_the_pictures_of_the_target(camvid, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri((tmp_path / "store").as_uri())
    settings = ("evaluate.report_images=1", "evaluate.data=[]", "logger=mlflow")
    try:
        train(small_recipe(camvid).override(*settings), tmp_path / "run")
    finally:
        mlflow.set_tracking_uri(before)
    kept = [path for path in (tmp_path / "store").rglob("artifacts/images/*.png")]
    assert len(kept) == 3
    (ours,) = (np.asarray(Image.open(path)) for path in kept if "prediction" in path.name)
    assert (ours == np.asarray(Image.open(tmp_path / "run" / "watched" / "0-0000004.png").convert("RGB"))).all()

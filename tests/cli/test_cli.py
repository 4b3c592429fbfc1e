"""The command line: what it prints, its exit codes, and one line for each mistake."""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from PIL import Image

import processes
from conftest import RECIPE, write_camvid
from segda.cli import main as main_module
from segda.cli.main import main


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with data, a recipe file and a finished run."""
    folder = tmp_path_factory.mktemp("place")
    write_camvid(folder / "data")
    (folder / "mine.yaml").write_text(RECIPE)
    assert main(["train", str(folder / "mine.yaml"), "--root", str(folder / "data"), "--out", str(folder / "run"),
                 "--set", "steps=1"]) == 0  # fmt: skip
    return folder


def said(capsys) -> tuple[str, str]:
    captured = capsys.readouterr()
    return captured.out, captured.err


def refused(capsys, *arguments: object) -> str:
    """Runs a command that must fail with exit code 2 and one line; returns the line."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    out, err = said(capsys)
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("segda: "), err
    assert "Traceback" not in out + err
    return lines[0]


COMMANDS = (
    "init", "train", "evaluate", "pseudo-label", "translate", "predict", "compare", "select", "adapt", "sweep",
    "recipe", "report", "draw", "list", "check-data", "convert", "prepare", "export", "push", "benchmark", "serve",
    "make-fog", "make-rain",
)  # fmt: skip


def test_the_commands_are_these():
    assert sorted(main_module.COMMANDS) == sorted(COMMANDS)


def test_without_arguments_the_help_is_shown(capsys):
    assert main(["--help"]) == 0
    asked, _ = said(capsys)
    assert main([]) == 0
    assert said(capsys) == (asked, "") and "Commands:" in asked


def test_the_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert said(capsys)[0] == f"segda {version('segda')}\n"


def test_a_shell_completes_the_commands(place):
    environment = os.environ | {"_SEGDA_COMPLETE": "complete_bash", "COMP_WORDS": "segda pre", "COMP_CWORD": "1"}
    program = "import sys; sys.argv[0] = 'segda'; from segda.cli.main import main; main()"
    done = processes.run([sys.executable, "-c", program], env=environment)
    assert done.stdout.split() == ["predict", "prepare"], done.stderr


def test_help_is_there_for_every_command_and_needs_no_torch():
    code = (
        "import sys; from segda.cli.main import main; assert main(['--help']) == 0; "
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules, 'slow help'"
    )
    done = processes.run([sys.executable, "-c", code], check=True)
    for command in COMMANDS:
        assert command in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_commands_help_describes_its_options(command, capsys):
    assert main([command, "--help"]) == 0
    out, _ = said(capsys)
    assert "Usage:" in out and len(out.splitlines()) > 6


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("methods", ["source_only", "dacs", "daformer", "ebda", "threshold", "[second_pass]"]),
        ("networks", ["mit_daformer", "b0", "b5", "deeplab_v2", "small", "101"]),
        ("datasets", ["camvid", "streets", "dusk", "night"]),
        ("recipes", ["ebda_camvid", "camvid:train:dusk", "source_only_streets"]),
        ("sweeps", ["streets_seeds", "Four methods on drawn streets", "12", "ebda_streets"]),
    ],
)
def test_list_names_all_there_is(what, expected, capsys):
    assert main(["list", what]) == 0
    out, _ = said(capsys)
    assert all(word in out for word in expected)


def test_a_run_is_evaluated_compared_and_used(place, capsys, tmp_path):
    root = ["--root", place / "data"]
    arguments = [
        "evaluate",
        place / "run",
        "--data",
        "camvid:test:dusk",
        "--data",
        "camvid:val:day",
        *root,
        "--json",
    ]
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 0
    reports = json.loads(said(capsys)[0])
    assert [report["protocol"]["data"] for report in reports] == ["camvid:test:dusk", "camvid:val:day"]
    assert main(["compare", str(place / "run"), "--markdown"]) == 0
    assert "| " in said(capsys)[0]
    images = place / "data" / "camvid" / "test"
    assert main(["predict", str(place / "run"), str(images), "--out", str(tmp_path / "out"), "--colour"]) == 0
    assert len(list((tmp_path / "out").glob("*.png"))) == 2 * len(list(images.iterdir()))
    assert main(["report", str(place / "run"), "--against", str(place / "run")]) == 0


def test_device_precision_and_set_reach_the_resolved_recipe(place, tmp_path, capsys):
    arguments = ["train", place / "mine.yaml", "--root", place / "data", "--out", tmp_path / "run", "--precision", "32",
                 "--device", "cpu", "--set", "steps=1", "--set", "evaluate.data=[]"]  # fmt: skip
    assert main([str(argument) for argument in arguments]) == 0
    text = (tmp_path / "run" / "recipe.yaml").read_text()
    assert "precision: '32'" in text and "device: cpu" in text and "steps: 1" in text


def test_a_labelled_training_marks_what_it_prints_and_nothing_else(place, tmp_path, capsys):
    arguments = ["train", place / "mine.yaml", "--root", place / "data", "--out", tmp_path / "run", "--set", "steps=1"]
    arguments = [*map(str, arguments), "--label", "ours"]
    capsys.readouterr()
    assert main(arguments) == 0
    lines = said(capsys)[0].splitlines()
    assert len(lines) > 3 and all(line.startswith("[ours] ") for line in lines)
    assert "ours" not in (tmp_path / "run" / "log.jsonl").read_text()
    assert main(arguments) == 2
    assert said(capsys)[1].startswith("[ours] segda: ") and main(["list", "sweeps"]) == 0
    assert "[ours]" not in said(capsys)[0], "the next command has no label"


def test_a_training_ends_with_the_students_numbers_and_the_way_to_the_others(place, tmp_path, capsys):
    arguments = ["train", place / "mine.yaml", "--root", place / "data", "--out", tmp_path / "run", "--set", "steps=1"]
    capsys.readouterr()
    assert main([*map(str, arguments), "--set", "evaluate.data=[camvid:val:day, camvid:test:dusk]"]) == 0
    *_, target, source, page, hidden = said(capsys)[0].splitlines()
    assert target.startswith("step 1  camvid:test:dusk (target)  mIoU ") and "teacher" not in target
    assert source.startswith("step 1  camvid:val:day (source)  mIoU ") and page.startswith("report: ")
    assert hidden == (
        "not shown: mean accuracy, pixel accuracy (--all), IoU of each class (--classes); see segda compare "
        f"{tmp_path / 'run'}"
    )


def test_check_data_writes_a_contact_sheet_and_fails_on_unusable_data(place, tmp_path, capsys):
    root = write_camvid(tmp_path / "data")
    arguments = ["check-data", "camvid:train", "--root", str(root), "--out", str(tmp_path / "sheets")]
    assert main(arguments) == 0
    (sheet,) = (tmp_path / "sheets").glob("*.png")
    with Image.open(sheet) as picture:
        assert picture.size[0] > 100
    next((root / "camvid" / "train").iterdir()).write_bytes(b"")
    assert main(arguments) == 1


def test_draw_writes_files(tmp_path, capsys):
    arguments = [
        "draw",
        "streets:val:fog",
        "--count",
        "1",
        "--size",
        "64x128",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(arguments) == 0
    assert list((tmp_path / "out").rglob("*_foggy_beta_*.png"))


MISTAKES = [
    (["trian"], "No such command 'trian'"),
    (["train"], "Missing argument 'RECIPE'"),
    (["train", "ebda_street"], "unknown recipe 'ebda_street'; did you mean 'ebda_streets'?"),
    (
        ["train", "ebda_streets", "--set", "method.treshold=1"],
        "no setting 'treshold'; did you mean 'threshold'?",
    ),
    (
        ["train", "ebda_streets", "--set", "data.source.set=street:train"],
        "unknown data set 'street'; did you mean 'streets'?",
    ),
    (["train", "ebda_streets", "--set", "method.name=ebad"], "unknown 'ebad'; did you mean 'ebda'?"),
    (["train", "ebda_streets", "--set", "optim.lr=fast"], "optim.lr"),
    (["train", "ebda_streets", "--precision", "16", "--device", "cpu"], "--precision 16 needs cuda"),
    (["train", "ebda_streets", "--device", "tpu"], "--device tpu: unknown device; did you mean 'cpu'?"),
    (["evaluate", "/no/run", "--data", "camvid:test"], "/no/run is not a run folder"),
    (["compare", "/no/run"], "/no/run"),
    (["compare", "/no/run", "--class"], "No such option: --class"),
    (["train", "ebda_streets", "--label"], "Option '--label' requires an argument"),
    (["report", "/no/run"], "/no/run"),
    (["predict", "/no/run", "/no/image.png", "--out", "x"], "/no/"),
    (["check-data", "camvidd:train"], "did you mean 'camvid'?"),
    (["check-data", "camvid:train", "--root", "/no/data"], "/no/data"),
    (["draw", "streets:train:fogg", "--out", "x"], "did you mean 'fog'?"),
    (["draw", "streets:train:fog", "--out", "x", "--size", "big"], "HEIGHTxWIDTH"),
    (["prepare", "gta6"], "did you mean 'gta5'?"),
    (["prepare", "gta5", "--cache", "--out", "x"], "give one of them"),
    (["make-fog", "/no/data", "--beta", "0.01", "--out", "x"], "/no/data: no images match"),
    (["make-fog", "/no/data", "--beta", "-1", "--out", "x"], "--beta -1"),
    (["make-fog", "/no/data", "--out", "x"], "Missing option '--beta'"),
    (["make-rain", "/no/data", "--alpha", "0.1", "--out", "x"], "no such strength"),
    (["list", "metods"], "'metods' is not one of"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=lambda value: str(value)[:40])
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *arguments)
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_a_run_folder_is_not_overwritten_unasked(place, capsys):
    line = refused(capsys, "train", place / "mine.yaml", "--root", place / "data", "--out", place / "run")
    assert "--resume" in line and "--overwrite" in line


def test_an_interrupt_exits_with_130(monkeypatch, capsys):
    def interrupt(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("segda.training.running.train_run", interrupt)
    assert main(["train", "ebda_streets"]) == 130
    assert "--resume" in said(capsys)[1]


def test_a_fault_of_ours_exits_with_1_and_shows_where(monkeypatch, capsys):
    def break_down(*arguments, **settings):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("segda.training.running.train_run", break_down)
    assert main(["train", "ebda_streets"]) == 1
    assert "ZeroDivisionError" in said(capsys)[1]


def test_a_command_of_one_process_refuses_torchrun(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["check-data", "camvid:test"]) == 2
    assert "check-data runs in one process; leave out torchrun" in capsys.readouterr().err

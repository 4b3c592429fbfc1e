"""Names and links that others gave: lines' ends, terminal commands, markup and HTML in what is printed and written;
links that lead out of the folder that is written; reports and logs that were edited.
"""

from __future__ import annotations

import json
import os
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.progress import Progress

from conftest import small_recipe
from layouts import save
from segda import run as runs
from segda.cli.main import main
from segda.commands.check_data import check_data
from segda.commands.compare import compare
from segda.commands.report import report
from segda.data.files.scratch import Scratch
from segda.data.sets.datasets import open_data
from segda.data.sets.given import images_of
from segda.errors import DataError, RecipeError, RunError, visible
from segda.evaluation.metrics import read_list
from segda.ground import progress
from segda.ground.atomic import PARTIAL, atomic_write, remove_partial, write_text
from segda.reporting.tables import data_table
from segda.training.sweep import _alone
from small_run import DUSK, write_run

HTML = "<script>alert(1)</script><img src=x onerror='alert(1)'>\"&amp;"
MARKUP = "[/bold] [red]x[/red] :boom: $\\frac{$ &lt;"
UNSHOWN = ["a\nb", "a\x1b[2Jb", "a\rb", "a\x00b", "a\u202eb", "a\u2028b", "a\udcffb"]


def shown(renderable) -> str:
    console = Console(width=300, force_terminal=True, color_system=None)
    with console.capture() as caught:
        console.print(renderable)
    return caught.get()


def folder_of(root: Path, classes: dict[str, object], name: str = "a.png") -> str:
    """A data set of one image, by a YAML file."""
    save(root / "i" / name, np.zeros((4, 6, 3), np.uint8))
    save(root / "l" / name, np.zeros((4, 6), np.uint8))
    told = {"splits": {"train": {"images": "i", "labels": "l"}}, "classes": classes}
    (root / "x.yaml").write_text(json.dumps(told))
    return f"folder:{root}/x.yaml:train"


@pytest.mark.parametrize("name", [name for name in UNSHOWN if "\0" not in name], ids=repr)
def test_an_image_whose_name_cannot_be_shown_is_refused(tmp_path, name):
    spec = folder_of(tmp_path, {"water": {"id": 0}}, f"{name}.png")
    for call, given in ((open_data, spec), (images_of, [tmp_path / "i"])):
        with pytest.raises(DataError, match="has characters that cannot be shown; rename the file") as caught:
            call(given)
        assert str(caught.value) == visible(str(caught.value)) or call is images_of


@pytest.mark.parametrize("name", UNSHOWN[:-1], ids=repr)
def test_a_class_whose_name_cannot_be_shown_is_refused(tmp_path, name):
    with pytest.raises(RecipeError, match="cannot be shown") as caught:
        open_data(folder_of(tmp_path, {name: {"id": 0}}))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", [HTML, MARKUP, "水 ship été"])
def test_markup_in_names_of_classes_and_images_stands_in_tables_as_it_is(tmp_path, name):
    file = name.replace("/", "|")
    spec = folder_of(tmp_path, {name: {"id": 0}}, f"{file}.png")
    found = check_data(spec, out=tmp_path / "sheet")
    assert found.usable and found.sheet.is_file()
    assert name in shown(data_table(found))


@pytest.mark.parametrize("title", ["predicting folder:[/x].yaml:train", "[red]x"])
def test_markup_in_the_title_of_a_progress_bar_stands_as_it_is(title, monkeypatch):
    monkeypatch.setattr(progress, "QUIET_SECONDS", -1.0)
    drawn = []
    stop = Progress.stop
    monkeypatch.setattr(Progress, "stop", lambda bar: (drawn.append(shown(bar.get_renderable())), stop(bar)))
    with Path(os.devnull).open("w") as nowhere:
        assert list(progress._bar(range(3), title, Console(force_terminal=True, file=nowhere))) == [0, 1, 2]
    assert title in drawn[0]


class Page(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]


@pytest.fixture
def measured(tmp_path):
    """(a run, the content of its report); its folder is called by HTML."""
    run = write_run(tmp_path / HTML.replace("/", "|"), report_images=0)
    names = [HTML, MARKUP, "水"]
    protocol = {
        "data": DUSK, "images": 3, "weights": "student", "step": 4, "recipe": HTML, "resize": None, "how": "whole",
        "window": None, "stride": None, "flip": False, "precision": "float32",
    }  # fmt: skip
    counts = np.arange(12).reshape(4, 3).tolist()
    content = [{"protocol": protocol, "classes": names, "counts": counts, "views": {MARKUP: {"classes": [HTML]}}}]
    write_text(run / "reports" / "x.json", json.dumps(content))
    return run, content


def test_a_report_escapes_all_that_it_is_given(measured):
    run, _ = measured
    runs.append_log(run, {"step": 5, "seconds": 0.5, HTML: 0.5})
    facts = {HTML: HTML, "line\nend": "\x1b[2J\ud800", "device": "cpu"}
    (run / "environment.json").write_text(json.dumps(facts))
    page = report(run).read_text(encoding="utf-8")
    found = Page(page)
    assert "script" not in found.tags and "img" not in found.tags and "onerror" not in found.attributes
    assert "alert(1)" in page and "\x1b" not in page and "\\x1b[2J\\ud800" in page
    assert "\\frac" in page


def test_tables_and_markdown_show_names_as_they_are(measured):
    run, _ = measured
    comparison = compare([run])
    text = shown(comparison.table(everything=True, classes=True))
    assert MARKUP in text and HTML in text
    assert "<script>" not in comparison.markdown(everything=True, classes=True).replace("\\<", "")


def test_an_error_is_one_line_without_a_terminals_commands(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments in (
        ["train", "no\x1b[2J\nsuch.yaml"],
        ["evaluate", "run\x1b]0;title\x07", "--data", DUSK],
        ["train", "advent_streets", "--set", "a\nb\x1b=1"],
        ["no\x1bsuch"],
    ):
        assert main(arguments) == 2
        written = capsys.readouterr().err
        assert written.startswith("segda: ") and written.count("\n") == 1 and written.strip().isprintable()


# Links


def test_a_link_in_the_folder_is_replaced_and_not_written_through(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("kept")
    out = tmp_path / "out"
    out.mkdir()
    (out / "x.json").symlink_to(secret)
    write_text(out / "x.json", "new")
    assert secret.read_text() == "kept"
    assert (out / "x.json").read_text() == "new" and not (out / "x.json").is_symlink()


def test_a_link_at_the_place_of_the_temporary_file_is_not_written_through(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("kept")
    (tmp_path / f".x.json.{os.getpid()}{PARTIAL}").symlink_to(secret)
    write_text(tmp_path / "x.json", "new")
    scratch = Scratch(tmp_path, ["a"], [(1, 2)])
    (tmp_path / f"a.{os.getpid()}{PARTIAL}").symlink_to(secret)
    scratch.write(0, np.zeros((1, 2), np.uint8), np.zeros((1, 2), np.float32))
    assert secret.read_text() == "kept" and scratch.has(0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.part", "secret", "x.json"]


def test_a_folder_that_is_a_link_is_written_to_and_stays_one(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    recipe = small_recipe(tmp_path)
    runs.begin(tmp_path / "runs" / "a", recipe)
    runs.append_log(tmp_path / "runs" / "a", {"step": 1})
    assert (tmp_path / "runs").is_symlink() and (tmp_path / "disk" / "a" / "log.jsonl").is_file()


def test_beginning_anew_removes_links_and_not_what_they_lead_to(tmp_path):
    run = write_run(tmp_path / "run")
    secret = tmp_path / "secret"
    secret.mkdir()
    for name in ("kept", ".kept.1.partial"):
        (secret / name).write_text("kept")
    for name in ("log.jsonl", "last.pt", "network.safetensors"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(secret / "kept")
    (run / "more").symlink_to(secret)
    remove_partial(run)
    runs.begin(run, small_recipe(tmp_path))
    runs.append_log(run, {"step": 1})
    assert [path.read_text() for path in sorted(secret.iterdir())] == ["kept", "kept"]
    (run / "reports").symlink_to(secret)
    with pytest.raises(RunError, match="cannot write"):
        runs.begin(run, small_recipe(tmp_path))
    assert [path.read_text() for path in sorted(secret.iterdir())] == ["kept", "kept"]


def test_the_lock_of_a_sweep_cuts_no_file(tmp_path):
    (tmp_path / "secret").write_text("kept")
    (tmp_path / "runs" / ".segda").mkdir(parents=True)
    (tmp_path / "runs" / ".segda" / "sweep.lock").symlink_to(tmp_path / "secret")
    with _alone(tmp_path / "runs"):
        assert (tmp_path / "secret").read_text() == "kept"


def test_what_fails_while_it_is_written_leaves_nothing(tmp_path):
    write_text(tmp_path / "x", "old")
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "x") as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x", "old")]


# Edited reports and logs


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("counts", [[2**70, 1, 1]] * 4),
        ("counts", [[1e300, 1, 1]] * 4),
        ("counts", [[1.5, 1, 1]] * 4),
        ("counts", [[-1, 1, 1]] * 4),
        ("counts", [[2**62, 1, 1]] * 4),
        ("counts", [[True, 1, 1]] * 4),
        ("counts", [[float("nan"), 1, 1]] * 4),
        ("counts", [[1, 1, 1]] * 3),
        ("counts", "many"),
        ("classes", ["a", "a", "b"]),
        ("classes", [["a"], "b", "c"]),
        ("classes", ["a\nb", "b", "c"]),
        ("views", {"x": {"classes": []}}),
        ("views", {"x\x1b": {"classes": ["水"]}}),
        ("protocol.data", 5),
        ("protocol.data", "a\x1bb"),
        ("protocol.images", "3"),
        ("protocol.step", [1]),
        ("protocol.weights", "third"),
        ("protocol.resize", "ab"),
        ("protocol.resize", [1, 2, 3]),
        ("protocol.how", "slide"),
        ("protocol.scales", [[]]),
        ("protocol", None),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_report_that_was_edited_is_refused(measured, key, value):
    run, content = measured
    at = content[0]
    *parents, last = key.split(".")
    for parent in parents:
        at = at[parent]
    at[last] = value
    path = run / "reports" / "x.json"
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match="is not a report of segda") as caught:
        read_list(path)
    assert "\n" not in str(caught.value)
    assert main(["compare", str(run)]) == 2


@pytest.mark.parametrize(
    "line",
    [
        b"5", b"null", b"[]", b'"a"', b"{}", b'{"step": "4"}', b'{"step": -1}', b'{"step": true}', b'{"step": 1e9}',
        b'{"step": 5, "source": "much"}', b'{"step": 5, "source": NaN}', b'{"step": 5, "source": 1e999}',
        b'{"step": 5, "source": {}}', b'{"step": 5, "histogram/target": [[1]]}', b'{"step": 5, "a\\nb": 1}',
        b'{"step": 5, "evaluation": 5}', b'{"step": 5, "evaluation": "a\\u001bb"}', b"\xff\xfe", b"[" * 5000,
        b'{"step": 5', b"9" * 5000,
    ],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
def test_a_log_that_was_edited_is_refused(measured, line):
    run, _ = measured
    whole_lines = (run / "log.jsonl").read_bytes()
    assert len(list(runs.read_log(run))) == 4
    (run / "log.jsonl").write_bytes(line + b"\n" + whole_lines)
    with pytest.raises(RunError, match="line 1 is (not JSON|no line of a log)"):
        list(runs.read_log(run))
    (run / "log.jsonl").write_bytes(whole_lines + b'{"step": 5, ' + line[: len(line) // 2])  # cut, as by a crash
    assert len(list(runs.read_log(run))) == 4

"""What people came with and what segda made of it: small folders, and what must hold of each.

`tests/cases/NAME/` is such a folder: `cmd` is what they typed, `expect` says what should happen. The table says it as
calls. To add one, copy its folder and write a row.
"""

from __future__ import annotations

import runpy
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from segda.cli.main import main

FOLDERS = Path(__file__).parent / "cases"


@dataclass(frozen=True)
class Call:
    """A call of segda in a copy of the folder.

    line: what comes after `segda`, or "python FILE" of the folder; {here} is the copy. code: the exit code. says: words
    of what is printed, spaces and lines' ends as one space. never: words that are not. inside: where it is called, from
    the copy on; env: as in cmd.
    """

    line: str
    code: int
    says: Sequence[str] = ()
    never: Sequence[str] = ()
    inside: str = "."
    env: dict[str, str] = field(default_factory=dict)


THEIRS = (
    Call("train r.yaml --out run", 0),
    Call("convert run --to daformer --out theirs.pth", 0),
    Call("python make.py", 0),
)
"""A checkpoint as other code keeps it."""

CASES: dict[str, tuple[Call, ...]] = {
    "check-data-read-only": (
        Call(
            "check-data folder:{here}/d.yaml:train",
            0,
            ["2 images, 2 labels", "road", "no contact sheet: cannot write check-data/", "usable"],
            inside="/proc",
        ),
    ),
    "tilde-root": (
        Call("check-data camvid:test:dusk --root=~/data", 2, ["{here}/h/data/camvid"], ["~"], env={"HOME": "{here}/h"}),
        Call(
            "check-data camvid:test:dusk",
            2,
            ["{here}/h/data/camvid"],
            ["~"],
            env={"HOME": "{here}/h", "SEGDA_DATA": "~/data"},
        ),
        Call("check-data camvid:test:dusk --root=$OWN/data", 2, ["{here}/h/data"], ["$"], env={"OWN": "{here}/h"}),
    ),
    "run-moved-cd": (
        Call("train r.yaml --out run", 0),
        Call("evaluate ../run --data folder:../d.yaml:train", 0, ["mIoU", "2 images at their size"], inside="images"),
    ),
    "run-without-yaml": (
        Call("train r.yaml --out run", 0),
        Call("python away.py", 0),
        Call("predict run images --out out", 0, ["2 files in out"]),
    ),
    "yaml-reordered": (
        Call("train r.yaml --out run", 0),
        Call("predict run images --out before --colour", 0),
        Call("python replace.py", 0),
        Call("predict run images --out after --colour", 0),
        Call("python same.py", 0),
    ),
    "evaluate-other-classes": (
        Call("train r.yaml --out run", 0),
        Call(
            "evaluate run --data folder:other/d.yaml:train",
            2,
            ["its labels know sea, ship, sky, and none of the classes background, road, car (d)", "in other/d.yaml"],
            ["use d"],
        ),
    ),
    "evaluate-partly-labelled": (
        Call("train r.yaml --out run", 0),
        Call(
            "evaluate run --data folder:d.yaml:train --classes",
            0,
            ["mean over 3 of 19 classes: road, sky, car", "mIoU"],
        ),
    ),
    "binary-255-not-named": (
        Call(
            "train r.yaml --out run",
            0,
            ["mIoU", "; no labelled pixel of fg: IoU 0 where predicted, else left out"],
        ),
    ),
    "ckpt-model-state": (
        *THEIRS,
        Call("convert w.pth --recipe r.yaml --out got", 0, ["166 tensors", "left out 2: cur_itrs, best_score"]),
    ),
    "ckpt-torch-compile": (*THEIRS, Call("convert w.pth --recipe r.yaml --out got", 0, ["166 tensors"])),
    "hf-class-order": (
        Call("python make.py", 0),
        Call(
            "convert theirs --recipe r.yaml --out got",
            0,
            [
                "classes put into the recipe's order, by the names in config.json: car, road, background",
                "deviation of images, by preprocessor_config.json: 0.485, 0.456, 0.406",
            ],
        ),
    ),
    "hf-lightning-prefix": (
        Call("python make.py", 0),
        Call("convert w.ckpt --recipe r.yaml --out got", 0, ["208 tensors", "style huggingface"]),
    ),
}
"""Name of a folder -> the calls, one after the other."""

NO_FILES = ("cmd", "expect")
"""Of a case's folder: what is no file of the people's own."""


def test_every_folder_has_a_row():
    assert {path.name for path in FOLDERS.iterdir()} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_case_ends_as_it_should(name, tmp_path, monkeypatch, capsys):
    here = tmp_path / "here"
    shutil.copytree(FOLDERS / name, here, ignore=shutil.ignore_patterns(*NO_FILES))
    for call in CASES[name]:
        with monkeypatch.context() as patch:
            patch.chdir(here / call.inside)
            for key, value in call.env.items():
                patch.setenv(key, value.format(here=here))
            words = shlex.split(call.line.format(here=here))
            if words[0] == "python":
                runpy.run_path(words[1])
                code = 0
            else:
                code = main(words)
        printed = capsys.readouterr()
        text = " ".join((printed.out + printed.err).split())
        assert code == call.code, text
        for words in call.says:
            assert words.format(here=here) in text, text
        for words in (*call.never, "Traceback"):
            assert words not in text, text

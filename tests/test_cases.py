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

    line: what comes after `segda`, or "python FILE" of the folder; {here} is the copy, other braces are doubled.
    code: the exit code. says: words of what is printed, spaces and lines' ends as one space. never: words that are not.
    inside: where it is called, from the copy on; env: as in cmd.
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

CHECK = "check-data folder:d.yaml:train"

CASES: dict[str, tuple[Call, ...]] = {
    "binary-255-not-named": (
        Call(
            CHECK,
            0,
            [
                "? bg is the only class that occurs",
                "? fg: no pixel is labelled so",
                "69 % of the pixels are ignored",
                "is 255 a class? then name it, as fg: {{id: 255}}",
            ],
        ),
        Call(
            "train r.yaml --out run",
            0,
            ["mIoU", "; no labelled pixel of fg: IoU 0 where predicted, else left out"],
        ),
    ),
    "check-data-read-only": (
        Call(
            "check-data folder:{here}/d.yaml:train",
            0,
            ["2 images, 2 labels", "road", "no contact sheet: cannot write check-data/", "usable"],
            inside="/proc",
        ),
    ),
    "colours-read-as-ids": (
        Call(CHECK, 1, ["labels_are: colours", "[128, 64, 128]"], ["id files", "data set's"]),
        Call("check-data folder:colour.yaml:train", 2, ["have a colour and no id", "write labels_are: colours"]),
    ),
    "double-star": (Call(CHECK, 0, ["3 images, 0 labels"]),),
    "exif-180": (
        Call(
            CHECK,
            0,
            ["2 images are turned as their EXIF orientation tag says: images/a0.jpg (tag 3)", "a1.jpg (tag 3)"],
        ),
    ),
    "frames-in-sequences": (
        Call(CHECK, 0, ["4 images, 4 labels", "usable"], ["fault"]),
        Call("check-data folder:images_only.yaml:train", 0, ["4 images, 0 labels"], ["remove"]),
    ),
    "labelme-json": (Call(CHECK, 0, ["2 images, 2 labels", "car 16.67 % 512 2", "background 83.33 % 2560 2"]),),
    "labels-named-otherwise": (
        Call(
            CHECK,
            1,
            [
                "images/a0.jpg (looked for masks/a0.png)",
                "masks/a0.jpg.png lies there",
                'labels: "masks/{{key}}.jpg.png" in the YAML file finds 2',
            ],
            ["get the data", "remove"],
        ),
    ),
    "masks-beside-images": (
        Call(CHECK, 0, ["2 images, 2 labels", "2 files are labels, not images, such as train/a0_jpg.rf.01_mask.png"]),
    ),
    "one-bit-masks": (
        Call(CHECK, 0, ["2 labels are black and white, read as 0 and 1", "background 31.25 %", "road 68.75 %"]),
    ),
    "one-class": (
        Call("train r.yaml --out run", 2, ["only one class (road)", "background: {{id: 0}}"], ["division"]),
        Call(CHECK, 0, ["? road is the only class that occurs"]),
    ),
    "plus-in-path": (
        Call("check-data folder:c++/day+night.yaml:train", 0, ["2 images, 2 labels", "usable"]),
        Call("check-data folder:'c++/day+night.yaml':train", 0, ["2 images, 2 labels", "usable"]),
        Call("""check-data "folder:'c++/day+night.yaml':train\"""", 0, ["2 images, 2 labels", "usable"]),
        Call("check-data folder:c++/night+day.yaml:train", 2, ["'folder:c'", "in quotes: folder:'a+b.yaml':split"]),
    ),
    "predict-one-bad": (
        Call("train r.yaml --out run", 0),
        Call("predict run photos --out out", 2, ["photos/c.jpg: the file is empty", "--on-bad-image skip"], ["b.png"]),
        Call(
            "predict run photos --out out --on-bad-image skip",
            0,
            [
                "photos/c.jpg: the file is empty",
                "1 of 4 images are left out",
                "1 images are greyscale",
                "3 files in out",
            ],
        ),
    ),
    "predict-panorama": (
        Call("train r.yaml --out run", 0),
        Call("predict run photos --out out", 2, ["photos/wide.png: is 1200x8", "32 on each side"], ["files in out"]),
        Call("predict run photos --out out --on-bad-image skip", 0, ["wide.png", "1 files in out"]),
    ),
    "sixteen-bit-ids": (Call(CHECK, 0, ["2 images, 2 labels", "road 56.25 %", "usable"]),),
    "space-names-case": (
        Call(
            CHECK,
            0,
            [
                "Sky, Road are no classes of the space cityscapes-19, and so ignored; did you mean sky, road?",
                "write becomes: {{Sky: sky, Road: road}}",
                "88 % of the pixels are ignored",
            ],
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
    "two-at-once": (Call("python both.py", 0),),
    "upper-case-JPG": (Call(CHECK, 0, ["2 images, 2 labels", "usable"]),),
    "yaml-keys-guessed": (
        Call("check-data folder:masks.yaml:train", 2, ["splits.train: unknown key 'masks'; did you mean 'labels'?"]),
        Call("check-data folder:names.yaml:train", 2, ["write background: {{id: 0}}"], ["input", "Input"]),
        Call("check-data folder:list.yaml:train", 2, ["classes: {{background: {{id: 0}}, road: {{id: 1}}"], ["nput"]),
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

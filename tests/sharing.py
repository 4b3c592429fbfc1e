"""What several processes share, done one thing after the other, by one process or under torchrun:

    torchrun --nproc-per-node 3 tests/sharing.py TREE [everything] [mistakes] [broken]

TREE is made by `write_tree`; everything is written into it, with paths that begin there.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from conftest import FRAMES, small_recipe, write_camvid
from evaluation.test_submission import write_image, write_nineteen
from segda import run as runs
from segda.cli.main import main
from segda.commands.predict import predict
from segda.commands.pseudo_label import pseudo_label
from segda.commands.train import train
from segda.commands.translate import translate
from segda.data.sets.class_statistics import class_statistics
from segda.data.sets.datasets import open_data
from segda.distributed import group
from segda.errors import DataError, SegdaError
from segda.evaluation import submission
from segda.evaluation.runs import Found, measure_runs
from segda.evaluation.submission import SERVERS, Server
from small_run import write_run

DATA = ["camvid:train", "camvid:val"]
"""Seven images, which neither two nor three processes divide; two, of which one of three gets none."""

CPU = ["--device", "cpu", "--precision", "32"]

DARK = [f"GOPR0364_frame_{k:06d}" for k in range(5)]


def write_tree(tree: Path) -> Path:
    """Data and a copy with other times; two runs, a snapshot of one, a run that takes no reports; one of other classes
    with a server's images; a translator's.
    """
    write_camvid(tree / "data")
    for file in (write_camvid(tree / "copy") / "camvid").rglob("*.png"):
        os.utime(file, (1e9, 1e9))
    write_run(tree / "run", teacher=True, resize=[48, 36])
    write_run(tree / "other", seed=5, resize=[48, 36], flip=True)
    snapshot = runs.snapshot_path(tree / "run", 2)
    snapshot.parent.mkdir()
    shutil.copy(runs.product_path(tree / "other", "student"), snapshot)
    (shutil.copytree(tree / "other", tree / "blocked") / "reports").touch()
    write_nineteen(tree / "nineteen")
    train(small_recipe(tree / "data", "cyclegan").override("steps=1"), tree / "translator")
    for k, name in enumerate(DARK):
        write_image(tree / "dark" / f"{name}_rgb_anon.png", (64, 48), k)
    return tree


def small_servers() -> dict[str, Server]:
    """Servers of images as small as the tree's."""
    return {name: replace(server, size=(64, 48)) for name, server in SERVERS.items()}


def plain(found: list[Found]) -> list[dict[str, Any]]:
    return [table for one in found for table in one.to_json()]


def everything() -> dict[str, Any]:
    """Does all that is shared; returns what each process is given."""
    root = Path("data")
    both, machine = [Path("run"), Path("other")], ("cpu", "32")
    which = ("student", "teacher")
    alike = {"device": "cpu", "precision": "32"}
    given = {}
    named = [word for spec in DATA for word in ("--data", spec)]
    assert main(["evaluate", *map(str, both), *named, "--root", "data", *CPU, "--json"]) == 0
    mean, out = "probabilities", Path("ensemble.json")
    given["ensemble"] = plain(measure_runs(both, DATA, root, which, mean, "3,1", out, False, *machine, None))
    aside = "camvid:train:dusk"
    given["statistics"] = plain(
        measure_runs(both, DATA[1:], root, which, None, None, None, False, *machine, None, aside)
    )
    given["snapshots"] = plain(measure_runs(both[:1], DATA[:1], root, which, None, None, None, True, *machine, None))
    images = [root / "camvid" / "train" / f"{name}.png" for name in FRAMES["train"][:5]]
    written = predict(Path("run"), images, Path("out/pictures"), "teacher", True, True, True, **alike)
    given["predicted"] = [str(path) for path in written]
    predict(Path("other"), [], Path("out/few"), data="camvid:val", root=root, **alike)
    for name, some in (("dark-zurich", DARK), ("acdc", DARK[:2])):
        files = [Path("dark") / f"{each}_rgb_anon.png" for each in some]
        predict(Path("nineteen"), files, Path(f"out/{name}.zip"), submission=name, **alike)
    here = Path("copy") if group.rank() else root  # as machines with data of their own
    given["labels"] = [
        pseudo_label(both, DATA[0], "entropy-median", "out/labels", ["images=3"], here, **alike, score=True),
        pseudo_label(["run"], DATA[1], {"name": "fixed", "level": 0.1}, "out/few-labels", (), here, **alike),
    ]
    given["translated"] = [
        translate("translator", spec, f"out/translated-{k}", root=here, **alike) for k, spec in enumerate(DATA)
    ]
    given["pixels"] = [
        class_statistics(open_data(spec, root), cache, workers=workers).tolist()
        for spec, cache, workers in ((DATA[0], Path("kept"), None), (DATA[0], None, 2), (DATA[1], Path("kept"), None))
    ]
    return given


def change(path: Path, content: bytes) -> bytes:
    """Another content of a file, by the first process while the others wait; returns what it was."""
    before = path.read_bytes()
    with group.joined():
        group.barrier()
        group.on_rank_zero(path.write_bytes, content)
    return before


TRAIN = ["--data", "camvid:train", "--root", "data", *CPU]
BROKEN = Path("data/camvid/train") / f"{FRAMES['train'][1]}.png"
"""The second process reads it."""


def mistakes() -> dict[str, Any]:
    """What each process ends with where one of them meets something wrong: a code, or the message of the error."""
    label = Path("data/camvid/trainannot") / BROKEN.name
    dark = [str(Path("dark") / f"{name}_rgb_anon.png") for name in DARK]
    ends: dict[str, Any] = {}

    def end(name: str, action: Callable[[], Any]) -> None:
        group.met = False  # each command is a process of its own
        try:
            ends[name] = action()
        except SystemExit as left:
            ends[name] = left.code
        except SegdaError as error:
            ends[name] = str(error)

    def segda(*arguments: str) -> Callable[[], Any]:
        return lambda: main([*arguments])

    end("no such data", segda("evaluate", "run", "--data", "camvid:tst", "--root", "data"))
    end("options", segda("evaluate", "run", *TRAIN, "--shares", "1,2"))
    whole = change(BROKEN, BROKEN.read_bytes()[:99])  # its header is there
    end("image", segda("evaluate", "run", *TRAIN))
    end("image to predict", segda("predict", "run", *TRAIN, "--out", "bad/pictures"))
    rule = {"name": "fixed", "level": 0.1}
    end(
        "image to label",
        lambda: pseudo_label(["run"], "camvid:train", rule, "bad/labels", (), Path("data"), device="cpu"),
    )
    change(BROKEN, whole)
    whole = change(label, b"no picture")
    end("label", lambda: class_statistics(open_data("camvid:train", Path("data")), Path("bad/kept")).tolist())
    change(label, whole)
    end("folder", segda("evaluate", "blocked", *TRAIN))

    def fail(*given: Any) -> None:
        raise DataError("the second cannot")

    if group.rank() == 1:
        submission.submitted = fail
    end("submission", segda("predict", "nineteen", *dark, "--submission", "acdc", "--out", "bad/a.zip", *CPU))
    return ends


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.chdir(sys.argv[1])
    SERVERS.update(small_servers())
    # Each command ends with a collection, which goes through all that is imported: a quarter of a second of a core.
    runs.load_network(Path("run"), "student")
    gc.freeze()
    for work in (everything, mistakes):
        if work.__name__ in sys.argv:
            name = f"{Path.cwd().name}-{work.__name__}-{group.rank()}.json"
            Path("..", name).write_text(json.dumps(work()))
    if "broken" in sys.argv:
        change(BROKEN, BROKEN.read_bytes()[:99])
        sys.exit(main(["predict", "run", *TRAIN, "--out", "bad/pictures"]))

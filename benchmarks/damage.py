"""Files that are damaged in place, each in every way: is what segda reads back ever another thing than what it wrote?

    python benchmarks/damage.py FLIPS BLOCKS CUTS [KIND ...] [--seed N] [--json]

Each file of KINDS gets FLIPS single bits turned, BLOCKS blocks of 16 to 4096 bytes zeroed and CUTS cuts, one at a time,
at places that are drawn; after each it is read from Python and by a command, in this process. What comes of it:

    found       an error of segda's in one line that names the file, with exit code 2; of class statistics, which can be
                counted again, a warning that names it and the right counts
    harmless    all that is read, and all that the command writes, is as without damage
    lost        anything else

The runs are those of kills.py, on noise. Exit code 1 if anything is lost.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import logging
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from kills import small, write_data
from segda import run as runs
from segda.cli.main import main as command_line
from segda.commands.pseudo_label import pseudo_label
from segda.commands.train import train
from segda.data.files.scratch import Scratch
from segda.data.labels.pseudo_labels import SUMMARY, PseudoLabels
from segda.data.sets.class_statistics import class_statistics
from segda.data.sets.datasets import open_data
from segda.errors import SegdaError
from segda.networks.weights import load
from segda.pseudo_labelling import job
from segda.run_data import space_of

RULE = {"name": "entropy-median", "floor": 0.1, "share": 0.5, "images": "all"}
BLOCKS = (16, 512, 4096)
RARE = "data.source.rare_class={temperature: 0.01, min_pixels: 1, crop_ratio: 1, retries: 1}"


@dataclass(frozen=True)
class Kind:
    """A file, how Python reads it, and a command that does; written: what that one writes, if it is to be compared."""

    file: Path
    read: Callable[[], Any]
    command: Sequence[str]
    written: Path | None = None


def kinds(place: Path) -> dict[str, Kind]:
    """Files of every kind that segda reads back, made in an empty folder."""
    write_data(place / "data")
    shrunk = ("steps=2", "keep_every=2", "save_every=1", "keep=1")
    recipe = small("ebda", "32", place / "data").override(*shrunk)
    run, labels, torn, out = (place / name for name in ("run", "labels", "torn", "out.pth"))
    train(recipe, run)
    data, dusk = recipe.data.source.set, recipe.data.target.set
    target = open_data(dusk, place / "data", space_of(recipe))
    pseudo_label([run], dusk, RULE, labels, root=place / "data")
    # Interrupted between the predictions and the labels.
    with patch.object(job, "write_labels", side_effect=KeyboardInterrupt), contextlib.suppress(KeyboardInterrupt):
        pseudo_label([run], dusk, RULE, torn, root=place / "data")
    scratch = torn / ".scratch"
    part = next(scratch.glob("*.part"))

    back = ("convert", str(run), "--to", "daformer", "--out", str(out), "--overwrite")
    assert command_line([*back]) == 0
    theirs = place / "theirs.pth"
    out.rename(theirs)
    resumed = ("train", str(run / "recipe.yaml"), "--out", str(run), "--resume")
    adapted = small("esl", "32", place / "data").override("steps=1", f"data.target.labels={labels}")
    (place / "esl.yaml").write_text(adapted.to_yaml())
    rare = small("source_only", "32", place / "data").override("steps=1", RARE)
    (place / "rare.yaml").write_text(rare.to_yaml())
    source = open_data(data, place / "data", space_of(recipe))
    counted = place / ".segda"
    class_statistics(source, counted, workers=0)

    checked = ("train", str(place / "esl.yaml"), "--out", str(place / "new"), "--check")
    counting = ("train", str(place / "rare.yaml"), "--out", str(place / "new"), "--overwrite")

    def product(which: str, step: int | None = None) -> Callable[[], Any]:
        return lambda: runs.load_network(run, which, step=step).state_dict()  # type: ignore[arg-type]

    def opened() -> PseudoLabels:
        return PseudoLabels.open(labels, target, space_of(recipe))

    def of_part() -> Any:
        size = target.size(0)
        return Scratch(scratch, [part.stem], [size]).read(0)

    settings = (f"--set={key}={value}" for key, value in RULE.items() if key != "name")
    again = ("pseudo-label", str(run), f"--data={dusk}", f"--rule={RULE['name']}", f"--out={torn}",
             f"--root={place / 'data'}", *settings)  # fmt: skip
    ours = place / "ours.safetensors"
    forth = ("convert", str(theirs), "--from=daformer", f"--recipe={run / 'recipe.yaml'}", f"--out={ours}",
             "--overwrite")  # fmt: skip
    return {
        "last.pt": Kind(run / "last.pt", lambda: runs.load_checkpoint(run), resumed),
        "network.safetensors": Kind(run / "network.safetensors", product("student"), back, out),
        "teacher.safetensors": Kind(run / "teacher.safetensors", product("teacher"), (*back, "--weights=teacher"), out),
        "snapshots/*": Kind(runs.snapshot_path(run, 2), product("student", 2), (*back, "--step=2"), out),
        "pseudo_labels.json": Kind(labels / SUMMARY, opened, checked),
        "pseudo-labels, *.png": Kind(opened().path(0), lambda: opened().read(0), checked),
        "class statistics, *.npz": Kind(
            next(counted.glob("*.npz")), lambda: class_statistics(source, counted, workers=0), counting
        ),
        "scratch, *.part": Kind(part, of_part, again),
        "weights of other code, *.pth": Kind(theirs, lambda: load.read_tensors(theirs), forth, ours),
    }


def mark(value: Any) -> str:
    """A hash of what was read."""
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        return hashlib.sha256(f"{value.dtype} {value.shape}".encode() + value.tobytes()).hexdigest()
    if isinstance(value, Mapping):
        value = [(str(key), mark(each)) for key, each in sorted(value.items(), key=lambda one: str(one[0]))]
    elif isinstance(value, list | tuple):
        value = [mark(each) for each in value]
    return hashlib.sha256(repr(value).encode()).hexdigest()


class Heard(logging.Handler):
    """Keeps warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def hearing() -> Iterator[list[str]]:
    heard = Heard()
    logging.getLogger("segda").addHandler(heard)
    try:
        yield heard.lines
    finally:
        logging.getLogger("segda").removeHandler(heard)


def from_python(kind: Kind, whole: str) -> str:
    """What comes of reading the file; whole: the mark of what is read without damage."""
    with hearing() as lines:
        try:
            found = mark(kind.read())
        except SegdaError as error:
            return "found" if str(kind.file) in str(error) and "\n" not in str(error) else f"lost: {error}"
        except Exception as error:
            return f"lost: {type(error).__name__}: {error}"
    if found != whole:
        return "lost: read as something else"
    return "found" if any(str(kind.file) in line for line in lines) else "harmless"


def from_command(kind: Kind, whole: bytes) -> str:
    """What comes of the command; whole: what it writes without damage."""
    code, said = ran(kind.command)
    lines = said.splitlines()
    named = [line for line in lines if str(kind.file) in line]
    if code == 2 and len(lines) == len(named) == 1:
        return "found"
    if code or written(kind) != whole:
        return f"lost: exit code {code}, {said[-300:]}"
    return "found" if named else "harmless"


def ran(command: Sequence[str]) -> tuple[int, str]:
    """The exit code of a command of segda's, and what it says on standard error."""
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = command_line([*command])
    return code, said.getvalue()


def written(kind: Kind) -> bytes:
    return kind.written.read_bytes() if kind.written else b""


def damages(content: bytes, flips: int, blocks: int, cuts: int, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Damaged contents of a file, each with the name of what was done to it."""
    for _ in range(flips):
        at, damaged = rng.randrange(len(content)), bytearray(content)
        damaged[at] ^= 1 << rng.randrange(8)
        yield "bit", bytes(damaged)
    for _ in range(blocks):
        size = min(rng.choice(BLOCKS), len(content))
        at = rng.randrange(len(content) - size + 1)
        yield "block", content[:at] + bytes(size) + content[at + size :]
    for _ in range(cuts):
        yield "cut", content[: rng.randrange(len(content))]


def tried(kind: Kind, place: Path, numbers: tuple[int, int, int], rng: random.Random) -> dict[str, Counter]:
    """Way and damage -> what came of it, and how often. The folder is as it was before, after each."""
    content, kept = kind.file.read_bytes(), place.with_name(f"{place.name}-kept")
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(place, kept)

    def restore() -> None:
        shutil.rmtree(place)
        shutil.copytree(kept, place)

    read = mark(kind.read())
    assert ran(kind.command)[0] == 0, "the command fails without damage"
    made = written(kind)
    restore()
    outcomes: dict[str, Counter] = {}
    for name, damaged in damages(content, *numbers, rng):
        for way, judge in (
            ("Python", partial(from_python, whole=read)),
            ("command", partial(from_command, whole=made)),
        ):
            kind.file.write_bytes(damaged)
            outcome = judge(kind)
            if outcome.startswith("lost"):
                print(f"{kind.file.name}, {name}, {way}: {outcome}", file=sys.stderr, flush=True)
            outcomes.setdefault(f"{way}, {name}", Counter())[outcome.partition(":")[0]] += 1
            if outcome == "harmless" and way == "command":
                restore()
    restore()
    return outcomes


def main(flips: int, blocks: int, cuts: int, names: Sequence[str], seed: int, as_json: bool) -> int:
    torch.set_num_threads(1)
    rng, lost, table = random.Random(seed), 0, {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "place"
        with contextlib.redirect_stdout(io.StringIO()):
            every = kinds(place)
        for name in names or every:
            table[name] = tried(every[name], place, (flips, blocks, cuts), rng)
            lost += sum(count["lost"] for count in table[name].values())
    if as_json:
        print(json.dumps(table))
        return int(lost > 0)
    print("| file | read by, damage | tried | found | harmless | lost |\n|---|---|---:|---:|---:|---:|")
    for name, outcomes in table.items():
        for how, count in sorted(outcomes.items()):
            cells = (count.total(), count["found"], count["harmless"], count["lost"])
            print(f"| {name} | {how} | {' | '.join(map(str, cells))} |")
    return int(lost > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for number in ("flips", "blocks", "cuts"):
        parser.add_argument(number, type=int)
    parser.add_argument("kinds", nargs="*")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    sys.exit(main(asked.flips, asked.blocks, asked.cuts, asked.kinds, asked.seed, asked.json))

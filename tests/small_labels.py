"""Pseudo-labels small enough for tests: two runs with random weights, the small CamVid, and Ctrl-C at any place."""

from __future__ import annotations

from pathlib import Path

from conftest import FRAMES, write_camvid
from segda.commands.pseudo_label import pseudo_label
from small_run import write_run

DUSK = "camvid:train:dusk"
NAMES = [name for name in FRAMES["train"] if name.startswith("0001TP")]
ALL = "camvid:train"


def write_place(folder: Path) -> Path:
    """Two runs, and a small CamVid."""
    write_camvid(folder / "data")
    write_run(folder / "run", teacher=True, resize=[48, 36])
    write_run(folder / "other", seed=5, resize=[48, 36], flip=True)
    return folder


def label(place, out, rule="entropy-median", data=ALL, runs=("run",), **given):
    given = {"root": place / "data", "precision": "32"} | given
    return pseudo_label([place / run for run in runs], data, rule, out, **given)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class Stop(KeyboardInterrupt):
    """Ctrl-C."""


def stopping(monkeypatch, module, name, after):
    """Replaces a function by itself, interrupted when it has been called so often; returns the calls."""
    whole, calls = getattr(module, name), []

    def counted(*given, **settings):
        if len(calls) == after:
            raise Stop
        calls.append(given)
        return whole(*given, **settings)

    monkeypatch.setattr(module, name, counted)
    return calls

"""What tests of stopped and resumed runs share."""

from __future__ import annotations

from pathlib import Path

from conftest import hearing
from segda import run as runs


def at(step: int, action):
    """A block that does something when a run says that it has done a step."""
    return hearing(lambda line: action() if line.startswith(f"step {step} ") else None)


def log_of(run: Path) -> list[dict]:
    """What is alike in the logs of equal runs."""
    return [{key: value for key, value in line.items() if key not in runs.PACE} for line in runs.read_log(run)]


def content(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.glob("*.safetensors")}


def same(ours: Path, theirs: Path) -> bool:
    return content(ours) == content(theirs) and log_of(ours) == log_of(theirs)

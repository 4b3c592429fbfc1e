"""What the words of a training's lines mean: each word of a shipped method has a meaning, a group has one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segda.reporting.words import meanings

TRACES = sorted((Path(__file__).parents[1] / "traces").glob("*.json"))


@pytest.mark.parametrize("trace", TRACES, ids=lambda path: path.stem)
def test_every_word_that_a_shipped_method_logs_has_a_meaning(trace):
    names = list(json.loads(trace.read_text()))
    assert names
    for name in names:
        assert len(meanings([name])) == 1, name


def test_a_group_is_explained_once_and_a_word_that_nobody_knows_not_at_all():
    found = meanings(["fool/main", "fool/aux", "source", "mine", "mine/aux", "entropy"])
    assert list(found) == ["fool/...", "source"]
    assert found["source"] == "cross entropy on source images"

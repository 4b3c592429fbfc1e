"""So much of a split for validation: what goes where, and that nothing goes to both."""

from __future__ import annotations

import pytest

from segda.data.sets.shares import divided


def names(**counts: int) -> list[str]:
    return [f"{sequence}_{number:04}.png" for sequence, count in counts.items() for number in range(count)]


def share(paths: list[str], wanted: float) -> tuple[list[str], str]:
    parts, how = divided(paths, {"val": wanted})
    return [paths[i] for i in parts["val"]], how


def test_whole_sequences_near_the_share():
    paths = names(**{letter: 10 for letter in "abcdefghij"})
    taken, how = share(paths, 0.2)
    assert len(taken) == 20
    assert len({path[0] for path in taken}) == 2
    assert how == "whole sequences, by name"
    assert share([*paths, *names(k=10)], 0.2)[0] == taken, "more images change nothing"


def test_of_sequences_that_are_too_long_the_end_of_one():
    paths = names(**{"0006R0": 150, "0016E5": 204})
    taken, how = share(paths, 0.2)
    assert taken == paths[-71:]
    assert "the end alone" in how


@pytest.mark.parametrize("wanted", [0.01, 0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("counts", [{"a": 5, "b": 5}, {"a": 2, "b": 50}, {"a": 3, "b": 3, "c": 3, "d": 90}])
def test_a_share_is_about_what_was_asked_for_and_never_all(wanted, counts):
    paths = names(**counts)
    taken, _ = share(paths, wanted)
    assert 0 < len(taken) < len(paths)
    assert abs(len(taken) - wanted * len(paths)) <= max(counts.values())


def test_without_sequences_the_last_by_their_numbers():
    paths = [f"{number}.jpg" for number in range(1, 12)]
    taken, how = share(paths, 0.3)
    assert taken == ["9.jpg", "10.jpg", "11.jpg"]
    assert how == "the last by name; no sequences are seen"


def test_two_shares_have_no_image_in_common():
    paths = names(**{letter: 6 for letter in "abcdefghij"})
    parts, _ = divided(paths, {"val": 0.2, "test": 0.3})
    assert not set(parts["val"]) & set(parts["test"])
    assert {len(part) for part in parts.values()} == {12, 18}

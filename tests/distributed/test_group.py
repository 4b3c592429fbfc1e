"""Several processes: how work and errors are shared. Two real ones write pseudo-labels in test_pseudo_label.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segda.distributed import group
from segda.errors import DataError


@pytest.fixture
def second_of_two(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")


def others_add(monkeypatch, counts):
    monkeypatch.setattr(group, "all_reduce_sum", lambda own: own + np.array(counts))


def test_alone_there_is_nothing_to_share(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("RANK", "3")  # left over from somewhere
    with group.joined():
        assert (group.rank(), group.world()) == (0, 1)
        assert group.own_share(range(5)) == range(5)
        assert group.all_reduce_sum(np.arange(3)).tolist() == [0, 1, 2]
        group.barrier()


def test_the_shares_of_all_are_the_whole(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    shares = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        shares.append(group.own_share(range(4, 15)))
    assert sorted(number for share in shares for number in share) == list(range(4, 15))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_processes_take_turns_at_accelerators(second_of_two, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert group.own_device(torch.device("cuda")) == torch.device("cuda", 1)
    assert group.own_device(torch.device("cpu")) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert group.own_device(torch.device("cuda")) == torch.device("cuda", 0)


def fail():
    raise DataError("broken")


def test_an_error_of_all_is_said_by_the_first_alone(second_of_two, monkeypatch):
    # What they add is the exit code of what the first met: a mistake, a failure.
    for code in (2, 1):
        others_add(monkeypatch, [code, 0])
        with pytest.raises(SystemExit) as left:
            group.all_succeed(fail)
        assert left.value.code == code


def test_an_error_of_one_is_said_by_it_and_stops_the_others(second_of_two, monkeypatch):
    others_add(monkeypatch, [0, 0])
    with pytest.raises(DataError, match="broken"):
        group.all_succeed(fail)
    others_add(monkeypatch, [1, 0])
    with pytest.raises(SystemExit):
        group.all_succeed(lambda: None)


def test_the_first_alone_does_what_is_done_once(second_of_two, monkeypatch):
    others_add(monkeypatch, [0, 0])
    group.on_rank_zero(fail)
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(DataError, match="broken"):
        group.on_rank_zero(fail)


def test_what_each_has_travels_as_text(second_of_two, monkeypatch):
    def gathered(rows):
        other = torch.zeros_like(rows)
        if rows.ndim == 1:
            other[0] = 4
        else:
            other[0, :4] = torch.tensor(list(b'"a" '), dtype=torch.uint8)
        return torch.cat([other, rows])

    monkeypatch.setattr(group, "gathered", gathered)
    value = [[1, "ä\n", None], {"b": 0.5}]
    assert group.all_gather_object(value) == ["a", value]

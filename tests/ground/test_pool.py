"""Many files at once: order, errors, interrupts, and no process left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
from functools import partial
from pathlib import Path

import pytest
import torch

from segda.errors import DataError, RecipeError, RunError
from segda.ground.pool import FEW, Pool, cores

# More processes than cores are slow, not wrong.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

THREE = pytest.mark.parametrize("workers", [0, 1, 2])


def square(i: int) -> tuple[int, int]:
    return i * i, os.getpid()


def refuse_the_third(folder: Path, i: int) -> int:
    (folder / f"{i}").touch()
    if i == 2:
        raise DataError("image 2 is broken; mend it")
    return i


def stumble(i: int) -> int:
    raise ZeroDivisionError("ours")


def die(i: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return i


@THREE
def test_results_come_in_order_whoever_made_them(workers):
    results = list(Pool(square, 20, workers))
    assert [value for value, _ in results] == [i * i for i in range(20)]
    makers = {maker for _, maker in results}
    assert len(makers) == max(1, workers) and (os.getpid() in makers) == (workers == 0)


def test_few_items_are_done_here_and_many_on_every_core():
    assert Pool(square, FEW).workers == 0
    assert Pool(square, 10_000).workers == (cores() if cores() > 1 else 0)
    assert Pool(square, 2, 50).workers == 2
    assert len(Pool(square, 9)) == 9 and list(Pool(square, 0)) == []
    with pytest.raises(RecipeError, match="--workers -1"):
        Pool(square, 2, -1)


@THREE
def test_an_error_is_raised_in_its_place_and_ends_the_work(workers, tmp_path):
    seen = []
    with pytest.raises(DataError, match=r"^image 2 is broken; mend it$"):
        for result in Pool(partial(refuse_the_third, tmp_path), 1000, workers):
            seen.append(result)
    assert seen == [0, 1]
    assert len(list(tmp_path.iterdir())) < 50
    assert not multiprocessing.active_children()


@THREE
def test_a_fault_of_ours_keeps_its_type(workers):
    with pytest.raises(ZeroDivisionError, match="ours"):
        list(Pool(stumble, 3, workers))


def test_a_process_that_was_killed_is_said():
    with pytest.raises(RunError, match="a process was killed.*fewer --workers"):
        list(Pool(die, 3, 1))
    assert not multiprocessing.active_children()


def test_an_interrupt_leaves_no_process_behind():
    with pytest.raises(KeyboardInterrupt):
        for number, _ in enumerate(Pool(square, 1000, 2)):
            if number == 3:
                raise KeyboardInterrupt
    assert not multiprocessing.active_children()


@THREE
def test_torchs_random_numbers_are_left_alone(workers):
    state = torch.random.get_rng_state()
    list(Pool(square, 3, workers))
    assert torch.equal(torch.random.get_rng_state(), state)

"""Training on several processes and in several passes: as one process that has all scenes of a step."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import ranks
from conftest import small_recipe, write_camvid
from resuming import log_of
from segda import run as runs
from segda.commands.evaluate import evaluate
from segda.commands.pseudo_label import pseudo_label
from segda.commands.train import train
from segda.ground.trust import trusting
from segda.methods import METHODS
from segda.recipes.recipe import Recipe

TESTS = Path(__file__).parents[1]
RULE = {"name": "entropy-median", "floor": 0.1, "share": 0.5, "images": "all"}
CASES = (*ranks.METHODS, *ranks.TOYS, *ranks.NETWORKS, *(f"{name} synchronised" for name in ranks.SYNCHRONISED))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, forks) -> Path:
    """With data, labels, and in two/ what two processes made of it; one start of torchrun for all tests here."""
    folder = tmp_path_factory.mktemp("ranks")
    data, labels, teacher = write_camvid(folder / "data"), folder / "labels", folder / "teacher"
    train(small_recipe(data, "advent").override("evaluate.data=[]", "steps=1"), teacher)
    pseudo_label([teacher], "camvid:train:dusk", RULE, labels, root=data, precision="32")
    (folder / "two").mkdir()
    recipes_in(folder)  # so that the files that students start from are there
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = forks.run(*torchrun, TESTS / "ranks.py", data, labels, folder / "two")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def recipes_in(folder: Path) -> dict[str, Recipe]:
    return ranks.recipes(folder / "data", folder / "labels")


@pytest.fixture(scope="module")
def recipes(folder) -> dict[str, Recipe]:
    return recipes_in(folder)


@pytest.fixture(scope="module")
def alone(recipes) -> dict[str, dict[str, torch.Tensor]]:
    """What each case learns in one process and one pass."""
    return {name: ranks.learnt(recipes[name], 1) for name in CASES}


NEAR = {"adapter": 5e-5}
"""Where not 5e-6: rounding is larger in batch norms that see few cells."""


def same(ours, theirs, case: str = "") -> None:
    assert ours.keys() == theirs.keys()
    worst = max((float((ours[name].double() - value.double()).abs().max()), name) for name, value in theirs.items())
    print("worst difference: {:.1e}, {}".format(*worst))
    for name, value in theirs.items():
        # Rounding moves an entropy at the border of two bins into the other one: some pixels of an enlarged cell.
        near = 2e-3 if name.startswith("term/histogram/") else NEAR.get(case, 5e-6)
        torch.testing.assert_close(
            ours[name], value, rtol=5e-6, atol=near, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("case", CASES)
def test_two_processes_learn_what_one_with_twice_the_batch_does(case, folder, alone):
    same(load_file(folder / "two" / f"{case}-1.safetensors"), alone[case], case)


@pytest.mark.parametrize("case", [*ranks.METHODS, *ranks.TOYS, "hrda", "light"])
def test_two_passes_a_step_learn_what_one_with_twice_the_batch_does(case, recipes, alone):
    same(ranks.learnt(recipes[case], 2), alone[case])


@pytest.mark.parametrize("case", ranks.IN_PASSES)
def test_two_processes_of_two_passes_learn_what_one_with_four_times_the_batch_does(case, folder, alone):
    found = load_file(folder / "two" / f"{case}-2.safetensors")
    found.pop("held", None)
    same(found, alone[case.removesuffix(" sharded")])


@pytest.mark.parametrize("case", ranks.SHARDED)
def test_weights_in_shards_learn_the_same_and_a_process_holds_half(case, folder, alone):
    found = load_file(folder / "two" / f"{case} sharded-1.safetensors")
    # Odd numbers of rows are not shared evenly, and discriminators not at all.
    assert found.pop("held") < (0.75 if case == "advent" else 0.55)
    same(found, alone[case], case)


def test_every_method_is_compared():
    assert {name.split()[0] for name in ranks.METHODS} == set(METHODS)


def test_the_cases_differ_by_far_more_than_the_comparisons_allow(alone):
    for one, other in combinations([case for case in CASES if case != "cyclegan"], 2):
        ours, theirs = (
            {name.replace(".over.", "."): value for name, value in alone[case].items()} for case in (one, other)
        )
        shared = [name for name in ours.keys() & theirs.keys() if name.startswith("student.encoder")]
        furthest = max(((ours[name] - theirs[name]).abs().max() for name in shared), default=None)
        assert furthest is None or furthest > 1e-4, (one, other)  # of two kinds of encoder, there is nothing to compare


@pytest.mark.parametrize("which", ["student", "teacher"])
def test_networks_inside_networks_learn_in_shards_what_they_learn_whole(which, folder):
    with trusting(folder / "two"):
        ours, theirs = (runs.load_network(folder / "two" / run, which) for run in ("wrapped-sharded", "wrapped"))
    same(ours.state_dict(), theirs.state_dict())


def test_a_run_in_shards_is_saved_whole_scored_and_goes_on(folder):
    sharded, stopped, plain = (folder / "two" / name for name in ("sharded", "stopped", "plain"))
    files = ("network.safetensors", "teacher.safetensors", "snapshots/network-0000002.safetensors")
    for file in files:
        assert (sharded / file).read_bytes() == (stopped / file).read_bytes()
        ours, theirs = load_file(sharded / file), load_file(plain / file)
        same(ours, theirs)
    assert log_of(sharded) == log_of(stopped)
    ours, theirs = (
        [line["watched/entropy"] for line in log_of(run) if "watched/entropy" in line] for run in (sharded, plain)
    )
    assert len(ours) == 1 and ours == pytest.approx(theirs, rel=1e-4)
    state, other = runs.load_checkpoint(sharded), runs.load_checkpoint(plain)
    assert state["t"] == 3 and state["made_by"]["processes"] == 2
    same(state["method"], other["method"])
    moments = {key: value["exp_avg"] for key, value in state["optimisers"]["student"].items()}
    same(moments, {key: value["exp_avg"] for key, value in other["optimisers"]["student"].items()})
    # Whoever reads the run has one process.
    (report, _) = json.loads((sharded / "reports" / "camvid-test-dusk.json").read_text())
    (again, _) = evaluate(sharded, ["camvid:test:dusk"], root=folder / "data", precision="32")
    assert json.loads(json.dumps(again.to_json())) == report

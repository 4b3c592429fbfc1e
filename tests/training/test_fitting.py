"""States that were made to do harm, or are of another training: refused in one line before anything is loaded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from conftest import small_recipe
from hostile import refused
from segda import run as runs
from segda.cli.main import main
from segda.commands.train import train
from segda.errors import RunFailure, SegdaError, WeightsError
from segda.training import assembly, checkpoint, running
from segda.training.assembly import Means
from segda.training.fitting import is_plain_tree

WHERE = Path("a run/last.pt")
OTHERS = (None, True, -1, 3, 2.5, "x", [], {}, {"x": {}}, [[]], torch.zeros(3), torch.zeros(2, 2).to_sparse())


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Two steps of a method with a teacher, a constant and two players, stopped between two lines of the log."""
    from conftest import write_camvid

    place = tmp_path_factory.mktemp("fitting")
    for method in ("ebda", "advent"):
        recipe = small_recipe(write_camvid(place / "data"), method)
        train(recipe.override("steps=2", "evaluate.data=[]", "save_every=1", "keep=1"), place / method)
    return place


def paths(tree: dict, above: tuple = ()):
    """The keys that lead to each value; of mappings by the names of weights, to the first and the last."""
    keys = list(tree)
    for key in (keys[0], keys[-1]) if any("." in str(key) for key in keys) else keys:
        yield (*above, key)
        if isinstance(tree[key], dict):
            yield from paths(tree[key], (*above, key))


def at(state: dict, path: tuple):
    for key in path[:-1]:
        state = state[key]
    return state, path[-1]


def copied(state: dict, path: tuple) -> dict:
    """A state of whose mappings those that lead to a value can be changed."""
    return state | ({path[0]: copied(state[path[0]], path[1:])} if len(path) > 1 else {})


def spoilt(state: dict, path: tuple):
    """The state with one value missing, of another kind, or under another name."""
    parent, key = at(state, path)
    own, others = parent[key], list(OTHERS)
    if isinstance(own, Tensor):
        others += [own[None], own.flatten()[:-1], own.to(torch.float64), own.new_zeros(()).expand(2, *own.shape)]
        others += [own.new_zeros(()).expand(own.shape)] if own.numel() > 1 else []
        others += [torch.nn.Parameter(own.float()), own.to("meta")]
    elif not isinstance(own, dict):
        others = [other for other in others if type(other) is not type(own)]
    elif not own or (path[0] == "optimisers" and len(path) == 3):
        others.remove({})  # as it is, or of a weight that never had a gradient
    for other in others:
        spoiling = copied(state, path)
        parent, key = at(spoiling, path)
        parent[key] = other
        yield spoiling, other
    for renamed in ((), ("x",), (7,)):
        spoiling = copied(state, path)
        parent, key = at(spoiling, path)
        value = parent.pop(key)
        parent.update(dict.fromkeys(renamed, value))
        yield spoiling, renamed


@pytest.mark.parametrize("method", ["ebda", "advent"])
def test_a_state_with_anything_missing_unknown_or_of_another_kind_is_refused_and_changes_nothing(run, method):
    state = runs.load_checkpoint(run / method)
    training = assembly.assemble(runs.load_recipe_of(run / method), run / "data", None)
    before = checkpoint.digest(training.method)
    tried = 0
    for path in paths(state):
        if path[0] in ("format", "recipe") or (path[0] == "means" and len(path) > 1):
            continue  # see below
        for other, what in spoilt(state, path):
            try:
                with pytest.raises(SegdaError) as caught:
                    checkpoint.check_form(other, WHERE)
                    checkpoint.restore(training, other, WHERE)
            except pytest.fail.Exception:
                raise AssertionError(f"{path} with {what!r} is taken") from None
            assert str(WHERE) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 500
            tried += 1
    assert tried > 300
    assert checkpoint.digest(training.method) == before
    assert all(not optimiser.state for optimiser in training.optimisers.values())
    assert "t is negative" in refused(checkpoint.check_form, state | {"t": -1}, WHERE, kind=WeightsError)
    checkpoint.check_form(state, WHERE)
    checkpoint.restore(training, state, WHERE)
    again = checkpoint.state_of(training)
    for player, known in state["optimisers"].items():
        for name, moments in known.items():
            assert all(torch.equal(again["optimisers"][player][name][key], value) for key, value in moments.items())


def test_moments_of_another_size_do_not_reach_the_optimiser(run, capsys):
    path = run / "ebda" / "last.pt"
    content = path.read_bytes()
    state = runs.load_checkpoint(run / "ebda")
    known = next(iter(state["optimisers"]["student"].values()))
    known["exp_avg"] = torch.zeros(1)
    runs.save_checkpoint(run / "ebda", state, keep=1)
    assert main(["train", str(run / "ebda" / "recipe.yaml"), "--out", str(run / "ebda"), "--resume"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "exp_avg is float32 of shape (1,), not float32 of shape" in line
    path.write_bytes(content)


@pytest.mark.parametrize("spoil", [
    lambda recipe: {}, lambda recipe: [recipe], lambda recipe: None, lambda recipe: recipe | {"steps": torch.ones(1)},
    lambda recipe: recipe | {"steps": "many"}, lambda recipe: recipe | {3: 3}, lambda recipe: recipe | {"data": None},
    lambda recipe: {key: value for key, value in recipe.items() if key != "network"},
])  # fmt: skip
def test_a_recipe_in_a_checkpoint_that_is_none_is_refused(run, tmp_path, spoil):
    shutil.copytree(run / "advent", tmp_path / "run")
    state = runs.load_checkpoint(tmp_path / "run")
    runs.save_checkpoint(tmp_path / "run", state | {"recipe": spoil(state["recipe"])}, keep=0)
    recipe = runs.load_recipe_of(run / "advent")
    assert "last.pt" in refused(running._found, tmp_path / "run", recipe, True, False, [])


@pytest.mark.parametrize("found", [None, 4, 5.0, True, "5", torch.tensor([4, 5]), [5], float("nan")])
def test_a_checkpoint_of_another_format_is_refused(run, tmp_path, found):
    shutil.copytree(run / "advent", tmp_path / "run")
    state = runs.load_checkpoint(tmp_path / "run")
    runs.save_checkpoint(tmp_path / "run", state | {"format": found}, keep=0)
    assert "another version of segda" in refused(runs.load_checkpoint, tmp_path / "run", kind=WeightsError)


def test_moments_are_found_by_the_names_of_their_weights_and_laid_out_as_they_are(run):
    state = runs.load_checkpoint(run / "ebda")
    training = assembly.assemble(runs.load_recipe_of(run / "ebda"), run / "data", None)
    student = state["optimisers"]["student"]
    shared = torch.zeros(10**6)
    for moments in student.values():  # all of one memory, and transposed
        for key in ("exp_avg", "exp_avg_sq"):
            whole = shared[: moments[key].numel()].view(moments[key].shape[::-1])
            moments[key] = whole.permute(*reversed(range(whole.ndim)))
    state["optimisers"]["student"] = dict(reversed(student.items()))
    checkpoint.restore(training, state, WHERE)
    optimiser = training.optimisers["student"]
    places = set()
    for weight, moments in optimiser.state.items():
        for key in ("exp_avg", "exp_avg_sq"):
            assert moments[key].stride() == weight.stride()
            places.add(moments[key].data_ptr())
    assert len(places) == 2 * len(student)


@pytest.mark.parametrize(
    "means",
    [
        {}, {"sums": {}}, {"sums": {}, "counts": {}, "x": {}}, {"sums": {"a": torch.ones(())}, "counts": {}},
        {"sums": {"a": 1.0}, "counts": {"a": 1}}, {"sums": {"a": torch.ones(())}, "counts": {"a": 0}},
        {"sums": {"a": torch.ones(())}, "counts": {"a": 1.0}}, {"sums": {"a": torch.ones(1) / 0}, "counts": {"a": 1}},
        {"sums": {"step": torch.ones(())}, "counts": {"step": 1}}, {"sums": {3: torch.ones(())}, "counts": {3: 1}},
        {"sums": {"a\n": torch.ones(())}, "counts": {"a\n": 1}}, {"sums": [], "counts": []},
    ],
)  # fmt: skip
def test_means_that_can_be_none_are_refused(means):
    assert list(Means.misfits(means))
    assert not list(Means.misfits({"sums": {"source": torch.ones(())}, "counts": {"source": 2}}))


def test_a_mean_of_another_shape_than_the_steps_is_refused():
    means = Means()
    means.restore({"sums": {"source": torch.ones(3)}, "counts": {"source": 1}}, torch.device("cpu"))
    with pytest.raises(WeightsError, match=r"means.sums.source is of shape \(3,\), the step's of \(\)"):
        means.add({"source": torch.ones(())})


def test_a_plain_tree_is_no_larger_and_no_deeper_than_a_recipe():
    loop: list = []
    loop.append(loop)
    deep: list = []
    for _ in range(100):
        deep = [deep]
    wide = ["x"]
    for _ in range(40):
        wide = [wide, wide]
    for tree in (loop, deep, wide, {1: 2}, {"a": {3}}, {"a": torch.ones(1)}, (1, 2)):
        assert not is_plain_tree(tree)
    assert is_plain_tree({"a": [1, 2.5, None, True, {"b": "c"}]})


def test_a_checkpoint_that_is_not_finite_does_not_replace_good_networks(run):
    out = run / "ebda"
    path, state = out / "last.pt", runs.load_checkpoint(out)
    content, networks = path.read_bytes(), {file: file.read_bytes() for file in out.glob("*.safetensors")}
    name = next(name for name, value in state["method"].items() if value.is_floating_point())
    state["method"][name].view(-1)[0] = float("nan")
    path.unlink()  # the newest of the older ones is the same file
    with path.open("wb") as file:
        runs.write_checkpoint(file, state, path)
    message = refused(lambda: train(runs.load_recipe_of(out), out, resume=True), kind=WeightsError)
    assert f"{name} is not finite; mv {runs.checkpoint_path(out, 2)} {path}" in message
    assert networks == {file: file.read_bytes() for file in out.glob("*.safetensors")}
    path.write_bytes(content)


@pytest.mark.parametrize("save_every", [1, 4])
def test_a_run_that_fails_before_it_was_saved_promises_no_checkpoint(camvid, tmp_path, save_every):
    recipe = small_recipe(camvid).override("optim.lr=1e38", "optim.warmup=0", f"save_every={save_every}")
    with pytest.raises(RunFailure, match="not finite.*; no checkpoint was saved before; train again"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "last.pt").exists()

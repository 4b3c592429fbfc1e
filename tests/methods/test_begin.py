"""Self-training that begins late: until then it is source_only, number for number."""

from __future__ import annotations

import pytest

from conftest import PHOTOMETRIC, small_recipe
from resuming import at, same
from segda import run as runs
from segda.commands.train import train
from segda.errors import RecipeError

METHODS = ("dacs", "ease")
SHORT = ("steps=4", "log_every=1", "keep_every=1", "evaluate.data=[]")


def trained(camvid, out, method, **settings):
    train(small_recipe(camvid, method, **settings).override(*SHORT), out)
    log = runs.read_log(out)
    return [{key: value for key, value in line.items() if key not in ("seconds", "waiting")} for line in log]


def weights(run, step):
    return runs.read_tensors(runs.snapshot_path(run, step))


@pytest.mark.parametrize("method", METHODS)
def test_until_it_begins_it_is_source_only(method, camvid, tmp_path):
    yardstick = trained(camvid, tmp_path / "source_only", "source_only")
    late = trained(camvid, tmp_path / "late", method, begin=2, source_photometric=PHOTOMETRIC)
    assert late[:2] == yardstick[:2]
    assert [("mix" in line, "confident" in line) for line in late] == [(False, False)] * 2 + [(True, True)] * 2
    # What the third step draws for the source is still the same; what it makes of the weights is not.
    assert late[2]["source"] == yardstick[2]["source"] and late[3]["source"] != yardstick[3]["source"]
    for step, equal in ((1, True), (2, True), (3, False)):
        ours, theirs = (weights(tmp_path / run, step) for run in ("late", "source_only"))
        assert all((tensor == theirs[name]).all() for name, tensor in ours.items()) is equal


def test_a_source_that_is_not_recoloured_leaves_the_mixs_draws_as_they_were(camvid, tmp_path):
    plain = trained(camvid, tmp_path / "plain", "dacs")
    same = trained(camvid, tmp_path / "same", "dacs", begin=0, selection="fraction", source_photometric=None)
    other = trained(camvid, tmp_path / "other", "dacs", source_photometric=PHOTOMETRIC)
    assert plain == same
    assert plain[0]["source"] != other[0]["source"]


def test_a_line_of_the_log_has_the_means_over_the_steps_that_had_the_term(camvid, tmp_path):
    def at(every):
        settings = ("steps=4", f"log_every={every}", "evaluate.data=[]")
        train(small_recipe(camvid, "dacs", begin=1).override(*settings), tmp_path / str(every))
        return list(runs.read_log(tmp_path / str(every)))

    each, (whole,) = at(1), at(4)
    assert "mix" not in each[0]
    for name, lines in (("source", each), ("mix", each[1:]), ("confident", each[1:])):
        assert whole[name] == pytest.approx(sum(line[name] for line in lines) / len(lines))


@pytest.mark.parametrize("method", METHODS)
def test_a_beginning_that_never_comes_is_refused(method, camvid):
    with pytest.raises(RecipeError, match="method.begin: 4 is not below steps: 4, .* never begin; set it lower, as to"):
        small_recipe(camvid, method).override("steps=4", "method.begin=4")
    with pytest.raises(RecipeError, match="method.begin: -1 is negative"):
        train(small_recipe(camvid, method, begin=-1), camvid / "run")


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_stopped_before_or_after_its_beginning_it_goes_on_as_if_it_had_not_been(stop, camvid, tmp_path):
    """Its running medians are part of the state."""
    recipe = small_recipe(camvid, "ease", begin=2, source_photometric=PHOTOMETRIC).override(*SHORT, "save_every=1")
    train(recipe, tmp_path / "whole")

    def interrupt():
        raise KeyboardInterrupt

    with at(stop, interrupt), pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "stopped")
    train(recipe, tmp_path / "stopped", resume=True)
    assert same(tmp_path / "stopped", tmp_path / "whole")
    state = runs.load_checkpoint(tmp_path / "whole")["method"]
    assert state["parts.select.begun"].any() and state["parts.select.level"].max() > 0

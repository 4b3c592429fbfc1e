"""Batch norm's statistics after the last step: whole images of the domains, in what the run keeps of its student."""

from __future__ import annotations

import json
import os
import signal
from contextlib import nullcontext

import pytest
import torch

from conftest import TREE, small_recipe
from resuming import at, content
from segda import run as runs
from segda.commands.evaluate import evaluate
from segda.commands.train import train
from segda.data.sets.datasets import open_data
from segda.errors import Interrupted, RecipeError
from segda.evaluation.look import Eye
from segda.evaluation.statistics import adopt_exact
from segda.recipes.recipe import parse_recipe
from segda.reporting.watched import Readable, observe, read_watched, readable

BOTH = "exact_statistics=[source, target]"


def trained(root, out, *settings, **how):
    recipe = small_recipe(root, "ease").override("steps=4", "evaluate.report_images=0", *settings)
    train(recipe, out, **how)
    return recipe


def student(run):
    return runs.read_tensors(runs.product_path(run, "student"))


def test_the_run_keeps_the_statistics_of_all_whole_images_and_is_else_the_same(camvid, tmp_path, said):
    plain, exact = tmp_path / "plain", tmp_path / "exact"
    recipe = trained(camvid, plain)
    trained(camvid, exact, BOTH)
    sets = [open_data(f"camvid:train:{light}", camvid) for light in ("day", "dusk")]
    assert any(f"statistics of {len(sets[0])} images of camvid:train:day and {len(sets[1])}" in line for line in said)
    network = runs.load_network(plain)
    running = {name: value.clone() for name, value in network.state_dict().items()}
    adopt_exact(Eye(network, recipe.evaluate, torch.device("cpu"), nullcontext()), sets)
    found = student(exact)
    assert all(torch.equal(value, found[name]) for name, value in network.state_dict().items())
    changed = {name for name, value in found.items() if not torch.equal(value, running[name])}
    assert changed and {name.rpartition(".")[2] for name in changed} == {"running_mean", "running_var"}
    # What a training goes on from is as it was, and so is the teacher.
    ours, theirs = (runs.load_checkpoint(run)["method"] for run in (exact, plain))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert content(exact)["teacher.safetensors"] == content(plain)["teacher.safetensors"]


def test_what_is_scored_is_what_is_kept(camvid, tmp_path):
    run = tmp_path / "run"
    recipe = trained(camvid, run, BOTH, "evaluate.every=2")
    (spec,) = recipe.evaluate.data
    (path,) = (run / "reports").glob("*.json")
    scored = json.loads(path.read_text())
    measured = {report.protocol.weights: report for report in evaluate(run, [spec], camvid, precision="32")}
    for one in scored:
        assert one["counts"] == measured[one["protocol"]["weights"]].to_json()["counts"]


def test_the_report_shows_the_target_as_that_student_sees_it(camvid, tmp_path):
    run = tmp_path / "run"
    recipe = trained(camvid, run, BOTH, "evaluate.report_images=2", "steps=20", "log_every=10")
    watched = read_watched(run)
    assert [moment.step for moment in watched.moments] == [10, 20]
    target = open_data("camvid:train:dusk", camvid)
    eye = Eye(runs.load_network(run), recipe.evaluate, torch.device("cpu"), nullcontext())
    now = observe(eye, Readable(target, readable(target, 2)), 20)
    assert watched.moments[-1].entropy == now.entropy and watched.moments[-1].shares == now.shares
    plain = tmp_path / "plain"
    trained(camvid, plain, "evaluate.report_images=2", "steps=20", "log_every=10")
    assert read_watched(plain).moments[-1].entropy != now.entropy
    assert read_watched(plain).moments[0] == watched.moments[0]


def test_a_run_that_was_stopped_or_is_resumed_at_its_end_has_the_same(camvid, tmp_path):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    trained(camvid, straight, BOTH, "log_every=1")
    before = content(straight)
    trained(camvid, straight, BOTH, "log_every=1", resume=True)
    assert content(straight) == before
    with pytest.raises(Interrupted), at(2, lambda: os.kill(os.getpid(), signal.SIGTERM)):
        trained(camvid, stopped, BOTH, "log_every=1")
    trained(camvid, stopped, BOTH, "log_every=1", resume=True)
    assert content(stopped) == before


def test_a_longer_training_goes_on_as_if_nothing_had_happened(camvid, tmp_path):
    steady = "optim.power=0"  # a rate that the length has no part in
    trained(camvid, tmp_path / "straight", BOTH, steady)
    trained(camvid, tmp_path / "longer", BOTH, steady, "steps=2")
    trained(camvid, tmp_path / "longer", BOTH, steady, resume=True, allow_changed=["steps"])
    assert content(tmp_path / "longer") == content(tmp_path / "straight")


@pytest.mark.parametrize(
    ("told", "changes", "complaint"),
    [
        (["target", "target"], {}, "names a domain twice"),
        (["night"], {}, "exact_statistics"),
        (["source"], {"data": {**TREE["data"], "on_bad_image": "skip"}}, "data.on_bad_image is skip"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_recipe(told, changes, complaint):
    with pytest.raises(RecipeError, match=complaint):
        parse_recipe({**TREE, **changes, "exact_statistics": told}, "recipe")


def test_a_source_that_is_not_there_is_refused(camvid):
    with pytest.raises(RecipeError, match="no data.source; name the target alone"):
        small_recipe(camvid, "source_free").override("exact_statistics=[source]")


def test_a_method_without_a_student_is_refused(camvid):
    with pytest.raises(RecipeError, match="exact_statistics: has no effect with method cyclegan"):
        small_recipe(camvid, "cyclegan").override("exact_statistics=[target]")


def test_a_network_without_batch_norm_is_refused_before_the_folder_is_touched(camvid, tmp_path):
    tiny = "encoder: tiny, decoder: deeplab_v2_reduced, weights: scratch, drop_path: 0"
    without = f"network={{name: encoder_decoder, {tiny}}}"
    with pytest.raises(RecipeError, match="exact_statistics: the student has no batch norm"):
        trained(camvid, tmp_path / "run", BOTH, without)
    assert not (tmp_path / "run").exists()

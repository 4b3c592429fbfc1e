"""A method that trains no segmentation network goes the way of all others: train, stop, resume, save, load."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from conftest import ADAM, RECIPE
from resuming import at, content, same
from segda import run as runs
from segda.commands.train import train
from segda.errors import Interrupted, RecipeError, RunError, WeightsError
from segda.recipes.recipe import Recipe, parse_recipe
from segda.training import max_batch
from segda.training.assembly import load_product


def tree_of(root: Path) -> dict:
    tree = yaml.safe_load(RECIPE)
    del tree["network"], tree["optim"]
    tree["data"]["root"] = str(root)
    tree["method"] = {"name": "recolouring:Recolouring", "cycle_weight": 10.0, "width": 4}
    tree["players"] = {"generators": ADAM, "discriminators": ADAM}
    tree["evaluate"]["data"] = []
    return tree


@pytest.fixture
def translating(camvid: Path) -> Recipe:
    return parse_recipe(tree_of(camvid), "translating").override("save_every=1")


def test_a_translator_is_trained_and_saved_under_its_products_names(translating, tmp_path, said):
    train(translating, tmp_path / "run")
    assert set(content(tmp_path / "run")) == {"translator.safetensors", "backward.safetensors"}
    state = runs.load_checkpoint(tmp_path / "run")
    for product, place in (("translator", "generators.target"), ("backward", "generators.source")):
        ours = load_product(tmp_path / "run", product)
        assert isinstance(ours, torch.nn.Conv2d) and not ours.training
        for name, value in ours.state_dict().items():
            assert torch.equal(value, state["method"][f"{place}.{name}"])
        assert runs.step_of(tmp_path / "run", product) == 4
    terms = {"fool/target", "cycle/target", "judge/target", "lr/generators/target", "lr/discriminators/source"}
    assert all(terms <= line.keys() for line in runs.read_log(tmp_path / "run"))
    assert said[-1] == "not scored: method recolouring:Recolouring trains no segmentation network"


def test_a_translator_that_was_stopped_ends_as_if_it_had_not_been(translating, tmp_path):
    train(translating, tmp_path / "whole")

    def stop():
        raise KeyboardInterrupt

    with at(2, stop), pytest.raises(Interrupted):
        train(translating, tmp_path / "run")
    train(translating, tmp_path / "run", resume=True)
    assert same(tmp_path / "run", tmp_path / "whole")
    assert runs.standing(tmp_path / "run", translating) == "finished"
    runs.product_path(tmp_path / "run", "backward").unlink()
    assert runs.standing(tmp_path / "run", translating) == "begun"


def test_its_constants_are_in_no_checkpoint_but_must_be_the_same(translating, tmp_path):
    train(translating, tmp_path / "run")
    state = runs.load_checkpoint(tmp_path / "run")
    assert state["constants"].keys() == {"grey"}
    assert not [name for name in state["method"] if name.startswith("grey")]
    other = translating.override("seed=4", "steps=5")
    with pytest.raises(
        WeightsError, match="grey is as it was when the run began, but the seed now gives other weights"
    ):
        train(other, tmp_path / "run", resume=True, allow_changed=["seed", "steps"])


def test_what_is_asked_of_a_student_is_refused(translating, camvid, tmp_path):
    for setting, message in (
        ("network={name: deeplab_v2, encoder: small, weights: scratch, multi_level: false}", "network: has no effect"),
        (f"optim={ADAM}", "optim: has no effect with method recolouring:Recolouring, which trains no student; remove"),
        ("players.student={name: adam, lr: 1, betas: [0, 0], power: 1}", "has no such player"),
        ("evaluate.data=[camvid:test]", "evaluate.data: has no effect"),
        ("evaluate.every=2", "evaluate.every: has no effect"),
        ("loss.class_weights=inverse", "loss.class_weights: has no effect with method recolouring"),
        ("loss.class_weights={road: 2}", "loss.class_weights: has no effect with method recolouring"),
        ("activation_checkpointing=true", "activation_checkpointing: has no effect"),
        ("shard=true", "shard: has no effect"),
    ):
        with pytest.raises(RecipeError, match=message):
            translating.override(setting)
    train(translating, tmp_path / "run")
    with pytest.raises(WeightsError, match="has no student"):
        runs.load_network(tmp_path / "run")
    with pytest.raises(RunError, match="makes translator, backward, and no student"):
        load_product(tmp_path / "run", "student")


def test_a_students_recipe_without_network_or_optimiser_says_what_is_missing(camvid):
    tree = yaml.safe_load(RECIPE)
    for key in ("network", "optim"):
        with pytest.raises(RecipeError, match=rf"small: {key}: missing; add it to the recipe"):
            parse_recipe({name: value for name, value in tree.items() if name != key}, "small")


def test_its_room_and_its_largest_batch_are_found(translating, tmp_path, monkeypatch, said):
    train(translating, tmp_path / "run", check=True)
    assert any(line.startswith("parameters: generators 168") for line in said)
    assert any(line.startswith("checkpoint: ") for line in said)
    monkeypatch.setattr(max_batch, "LARGE", 4)
    monkeypatch.setattr(max_batch, "CHECK_SECONDS", 0)
    assert max_batch.find_max_batch(translating).batch > 4

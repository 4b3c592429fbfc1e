"""What classes weigh in the cross entropy: worked by hand, and against torch's own weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from conftest import small_recipe
from segda.commands.train import train
from segda.distributed.shares import ALONE
from segda.errors import RecipeError
from segda.networks.network import Head, Output
from segda.parts.class_weights import given_weights, inverse_frequency, median_frequency, weighted
from segda.parts.losses import supervised
from segda.recipes.recipe import parse_recipe
from segda.run import read_log
from segda.scene import IGNORE, Scene

COUNTS = np.array(
    # road, car, sky, boat, ignored
    [
        [60, 20, 0, 0, 20],
        [80, 0, 10, 0, 10],
    ]
)


def test_inverse_frequencies_by_hand():
    # 140 road, 20 car, 10 sky of 170 in three classes that occur
    assert inverse_frequency(COUNTS).tolist() == pytest.approx([170 / 420, 170 / 60, 170 / 30, 1])
    pixels = COUNTS[:, :4].sum(0)
    assert (pixels * inverse_frequency(COUNTS)).sum() == pytest.approx(170), "a pixel weighs 1 in the mean"


def test_median_frequencies_by_hand():
    # road is in both images: 140 / 200; car in the first: 20 / 100; sky in the second: 10 / 100. The median is car's.
    assert median_frequency(COUNTS).tolist() == pytest.approx([0.2 / 0.7, 1, 2, 1])


@pytest.mark.parametrize("rule", [inverse_frequency, median_frequency])
def test_where_nothing_is_labelled_all_classes_weigh_the_same(rule):
    assert rule(np.array([[0, 0, 100]])).tolist() == [1, 1]


def test_weights_are_given_by_name():
    assert given_weights({"car": 3}, ("road", "car")).tolist() == [1, 3]
    with pytest.raises(RecipeError, match="loss.class_weights: unknown class 'cat'; did you mean 'car'"):
        given_weights({"cat": 3}, ("road", "car"))


def test_the_loss_is_torchs_with_these_weights():
    torch.manual_seed(0)
    logits, label = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    label[0, 0] = IGNORE
    weights = torch.tensor([0.5, 1.0, 4.0])
    scene = weighted(Scene(torch.rand(2, 3, 4, 5), label), weights)
    theirs = F.cross_entropy(logits, label, weight=weights, ignore_index=IGNORE, reduction="sum")
    for over, pixels in (("all", label.numel()), ("valid", (label != IGNORE).sum())):
        ours = supervised(Output({"main": Head(logits)}), scene, over=over, share=ALONE)
        torch.testing.assert_close(ours, theirs / pixels)
    again = weighted(scene, weights)
    assert torch.equal(again.weight, scene.weight * scene.weight)


def first_loss(camvid, run, **weights) -> float:
    recipe = small_recipe(camvid).override(
        "steps=1", "evaluate.data=[]", *(f"loss.{k}={v}" for k, v in weights.items())
    )
    train(recipe, run)
    return next(line["source"] for line in read_log(run) if "source" in line)


def test_a_training_weighs_the_source_by_its_statistics(camvid, tmp_path, said):
    plain = first_loss(camvid, tmp_path / "plain")
    assert first_loss(camvid, tmp_path / "none", class_weights="none") == plain
    assert not any(line.startswith("class weights") for line in said)
    every = ", ".join(f"{name}: 2" for name in ("sky", "building", "pole", "road", "pavement", "tree", "fence", "car"))
    others = ", sign symbol: 2, pedestrian: 2, bicyclist: 2"
    doubled = first_loss(camvid, tmp_path / "doubled", class_weights=f"{{{every}{others}}}")
    assert doubled == pytest.approx(2 * plain, rel=1e-5)
    median = first_loss(camvid, tmp_path / "median", class_weights="median")
    assert math.isfinite(median) and median != plain
    assert any(line.startswith("class weights: sky ") for line in said)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["loss.class_weights=rare"], "loss.class_weights"),
        (["loss.class_weights={car: -1}"], "loss.class_weights"),
        (["loss.class_weight=median"], "did you mean 'class_weights'"),
    ],
)
def test_weights_that_cannot_be_are_refused(camvid, settings, said):
    with pytest.raises(RecipeError, match=said):
        small_recipe(camvid).override(*settings)


def test_weights_of_a_class_that_is_not_there_are_refused_before_a_run_begins(camvid, tmp_path):
    recipe = small_recipe(camvid).override("loss.class_weights={cat: 2}")
    with pytest.raises(RecipeError, match="unknown class 'cat'"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_a_source_nothing_weighs(camvid):
    tree = small_recipe(camvid).model_dump(mode="json", exclude_unset=True)
    tree["data"] |= {"source": None, "space": "camvid-11"}
    tree |= {"method": {"name": "toys:SourceFree"}, "loss": {"class_weights": "median"}}
    with pytest.raises(RecipeError, match="loss.class_weights: has no effect without data.source"):
        parse_recipe(tree, "test")

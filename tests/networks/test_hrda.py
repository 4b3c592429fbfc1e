"""HRDA under every method, in shares of a step, stopped and gone on with, and settings that cannot be.

tests/conformance/hrda.py compares its numbers with the authors'.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from conftest import small_recipe
from narrow import narrow
from ranks import SGD
from resuming import at, same
from segda.commands.train import train
from segda.distributed.shares import ALONE
from segda.errors import DataError, RecipeError
from segda.networks import HRDA, NETWORKS
from segda.networks.hrda import box_in
from segda.parts.feature_distance import FeatureDistance, FeatureDistanceSettings
from segda.recipes.build import build
from segda.recipes.recipe import Recipe
from segda.scene import Scene
from segda.training import assembly

OVER = {"name": "encoder_decoder", "encoder": "tiny", "decoder": "deeplab_v3_plus", "weights": "scratch"}
"""No batch norm, which would see the scenes of a share alone."""

SPEC = {
    "name": "hrda", "box": [32, 32], "grid": 8, "context_scale": 0.5, "detail_weight": 0.1,
    "attention": "deeplab_v3_plus", "attention_dropout": 0.1, "over": OVER | {"dropout": 0.1, "drop_path": 0.1},
}  # fmt: skip

HEADS = {
    "minent": {"entropy_weight": {"main": 0.1, "detail": 0.0}},
    "advent": {"adversarial_weight": {"main": 0.1, "detail": 0.0}},
    # Its image's deepest map has one cell, which is never of one class.
    "daformer": {"feature_distance": {"weight": 0.005, "classes": None, "min_share": None}},
}


@pytest.fixture(autouse=True, scope="module")
def few_channels() -> Iterator[None]:
    with narrow():
        yield


def recipe_of(camvid, method: str, *changes: str) -> Recipe:
    crops = ("data.source.augment.crop=[64, 64]", "data.target.augment.crop=[64, 64]")
    tree = small_recipe(camvid, method, **HEADS.get(method, {})).override(*crops, "evaluate.data=[]", *changes)
    return tree.model_copy(update={"network": SPEC})


def test_there_are_as_many_places_for_a_box_as_whole_grids_fit_into_its_margin_and_one_pixel():
    """Of margins of 15 and 8 pixels: 16 // 8 and 9 // 8."""
    asked = []
    assert box_in((47, 40), (32, 32), 8, lambda count: asked.append(count) or count - 1) == (8, 0, 32, 32)
    assert asked == [2, 1]


@pytest.mark.parametrize("method", ["source_only", "dacs", "daformer", "ebda", "mic", "minent", "advent"])
def test_it_takes_steps_with_every_method(method, camvid):
    training = assembly.assemble(recipe_of(camvid, method), camvid, None)
    assert isinstance(training.method.student, HRDA)
    before = {name: value.clone() for name, value in training.method.student.state_dict().items()}
    for drawn in training.batches(1, 0):
        terms = training.step(drawn)
    after = training.method.student.state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"over", "attention"}
    assert all(value.isfinite().all() for value in terms.values())


def test_the_shares_of_a_step_have_the_same_box(camvid):
    def learnt(*changes: str) -> dict[str, torch.Tensor]:
        sgd = f"optim={SGD}"
        training = assembly.assemble(recipe_of(camvid, "mic", sgd, *changes), camvid, None)
        boxes = []
        draw = training.method.student.draw
        training.method.student.draw = lambda size: boxes.append(draw(size)) or boxes[-1]
        for drawn in training.batches(2, 0):
            training.step(drawn)
        return training.method.state_dict(), boxes

    (whole, one), (shared, two) = learnt("data.batch=4"), learnt("data.batch=2", "accumulate=2")
    # Of source, mix and masked images of each step; micro-batches take turns.
    assert len(set(one)) > 2 and sorted(two) == sorted(2 * one)
    for name, value in whole.items():
        if value.is_floating_point():
            torch.testing.assert_close(shared[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_a_run_that_was_stopped_goes_on_as_one_that_was_not(camvid, tmp_path):
    recipe = recipe_of(camvid, "dacs", "steps=3", "save_every=1", "keep_every=1")
    train(recipe, tmp_path / "whole")

    def interrupt():
        raise KeyboardInterrupt

    with at(2, interrupt), pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "stopped")
    train(recipe, tmp_path / "stopped", resume=True)
    assert same(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"box": [30, 32]}, r"^network\.box: \[30, 32\] is not in whole cells; give multiples of 8 pixels"),
        (
            {"attention": "deeplab_v2_reduced", "attention_dropout": None},
            r"attention: deeplab_v2_reduced has other cells",
        ),
        ({"attention": "conv2"}, r"^network\.attention: no head 'conv2' for it; did you mean 'conv1'"),
        ({"attention": 1.5}, r"^network\.attention: 1\.5 is not in \[0, 1\]"),
        ({"attention": 0.5, "attention_dropout": 0.1}, r"attention_dropout has no effect with a fixed attention"),
        ({"attention_dropout": None}, r"^network\.attention_dropout: missing; decoder deeplab_v3_plus needs it"),
        ({"detail_weight": 1.0}, r"detail_weight 1 and context_weight 0 are shares of the loss; .* sum below 1"),
        ({"context_scale": 1.5}, r"^network\.context_scale: 1\.5 is not in \(0, 1\]"),
        ({"context_scale": 0.4321}, r"^network\.context_scale: 0\.4321 leaves no whole cells; give a fraction"),
        ({"grid": 0}, r"^network\.grid: 0 is below 1"),
        ({"window_batch": 0}, r"^network\.window_batch: 0 is below 1"),
        (
            {"over": {"name": "deeplab_v2", "encoder": "small", "weights": "scratch", "multi_level": False}},
            r"^network\.over: hrda needs a network whose logits have cells of whole pixels",
        ),
        ({"over": OVER | {"dropout": 0.1}}, r"^network\.over\.drop_path: missing"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_line(changes, message):
    with pytest.raises(RecipeError, match=message) as caught:
        build(NETWORKS, SPEC | changes, "network", class_names=("road", "sky"))
    assert "\n" not in str(caught.value)


def test_an_image_too_small_for_the_context_is_refused():
    network = build(NETWORKS, SPEC | {"box": [64, 64]}, "network", class_names=("road", "sky")).eval()
    with pytest.raises(DataError, match=r"hrda's context of 40 x 64 pixels: image of 20 x 32 pixels .* needs"):
        network.infer(torch.zeros(1, 3, 40, 64))


def test_both_scales_are_held_where_the_detail_is_the_whole_crop():
    """Their distances are added, each the mean over its own cells of the class that fills three quarters of them."""
    torch.manual_seed(0)
    spec = SPEC | {"box": [128, 128], "held": "both", "over": OVER | {"dropout": 0.0, "drop_path": 0.0}}
    student = build(NETWORKS, spec, "network", class_names=("road", "car"))
    settings = FeatureDistanceSettings(weight=0.5, classes=("car",), min_share=0.75)
    distance = FeatureDistance(student, settings)
    image, label = torch.rand(2, 3, 128, 128), torch.zeros(2, 128, 128, dtype=torch.int64)
    label[0, :, :64] = label[1, 96:, 32:] = 1
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        start, output = distance.at_start(Scene(image, label), ALONE), student(image)
        expected = 0.0
        small = torch.nn.functional.interpolate(image, scale_factor=0.5, mode="bilinear", align_corners=False)
        for seen in (small, image):
            now, then = (network.over.features(seen)[-1].double() for network in (student, distance.network))
            side = 128 // now.shape[-1]
            cells = [
                (now[b, :, y, x] - then[b, :, y, x]).square().sum().sqrt().item()
                for b in range(2)
                for y in range(128 // side)
                for x in range(128 // side)
                if (label[b, side * y : side * (y + 1), side * x : side * (x + 1)] == 1).double().mean() >= 0.75
            ]
            assert cells
            expected += 0.5 * sum(cells) / len(cells)
    assert distance(output, start).item() == pytest.approx(expected, rel=1e-5)


def test_both_scales_are_held_only_where_the_box_is_the_crop():
    network = build(NETWORKS, SPEC | {"held": "both"}, "network", class_names=("road", "car"))
    with pytest.raises(RecipeError, match=r"network.held: both needs a box as large as the images \(got \[32, 32\]"):
        network.held(torch.rand(1, 3, 64, 64))

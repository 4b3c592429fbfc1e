"""DeepLab-v2 against values recorded from ADVENT's code (golden/advent_esl), its weights converted from their names."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from advent_weights import GOLDEN, recorded, theirs
from golden import assert_near
from segda.commands.convert import convert
from segda.networks import DeepLabV2
from segda.networks.deeplab import upsample
from segda.networks.weights.layouts import LAYOUTS
from segda.recipes.recipe import load_recipe
from segda.run import load_network

SUMS = 1e-5
"""Relative, of sums over whole maps recorded in float32 alone: a hundred times the rounding of one value."""

IMAGES = {"a": (1, 3, 65, 129), "b": (2, 3, 62, 101)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder converted from the authors' checkpoint, saved as they do after training on several GPUs."""
    folder = tmp_path_factory.mktemp("deeplab")
    torch.save({f"module.{name}": tensor for name, tensor in theirs("deeplab").items()}, folder / "theirs.pth")
    convert(folder / "theirs.pth", folder / "run", source="advent", recipe=load_recipe("advent_gta5_cityscapes"))
    return folder / "run"


@pytest.fixture(scope="module")
def network(run) -> DeepLabV2:
    """Recorded images have their mean off and are in no range."""
    ours = load_network(run)
    ours.mean.zero_()
    ours.scale.fill_(1)
    return ours


def logits(network: DeepLabV2, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of both heads, at stride 8."""
    with torch.no_grad():
        levels = network.features(image)
        return {"main": network.decode(levels), "aux": network.classifiers["aux"](levels[2])}


def test_the_generator_gives_what_the_recorders_gave():
    if GOLDEN.offset:
        pytest.skip("first values are recorded for key offset 0")
    for name, row in GOLDEN.json("generator_check.json")["public"].items():
        if "kind" in row:
            ours = GOLDEN.tensor(name, row["shape"], row["kind"]).numpy()
        elif "shape" in row:
            ours = GOLDEN.normal(name, tuple(row["shape"]))
        else:
            continue  # of whole numbers; in no use here
        count = min(4, ours.size)
        np.testing.assert_array_equal(ours.ravel()[:count], np.float32(row["first4"][:count]))
        assert ours.sum(dtype=np.float64) == pytest.approx(row["sum_f64"], rel=1e-12)


@pytest.mark.parametrize("image", IMAGES)
def test_logits_in_evaluation_equal_the_authors(network, image):
    values = GOLDEN.npz("deeplab_forward.npz")
    for head, ours in logits(network, recorded(f"deeplab.input.{image}", IMAGES[image])).items():
        assert_near(ours, values[f"{image}_eval_{head}_f64"], "one pass", head)


@pytest.mark.parametrize("image", IMAGES)
def test_logits_and_statistics_in_training_equal_the_authors(network, image):
    values, sums = GOLDEN.npz("deeplab_forward.npz"), GOLDEN.json("deeplab_forward_bnstats.json")
    fresh = copy.deepcopy(network).train()
    for head, ours in logits(fresh, recorded(f"deeplab.input.{image}", IMAGES[image])).items():
        assert_near(ours, values[f"{image}_train_{head}_f64"], "batch statistics", head)
    if image != "a":
        return
    encoder = fresh.encoder
    norms = {
        "bn1": encoder.bn1,
        "layer2.0.downsample.1": encoder.stages[1][0].shortcut[1],
        "layer3.22.bn3": encoder.stages[2][22].bn3,
        "layer4.2.bn3": encoder.stages[3][2].bn3,
    }
    checked = 0
    for key, row in sums.items():
        if not key.endswith("_f64"):
            continue
        place, _, buffer = key.removesuffix("_f64").rpartition(".")
        ours = getattr(norms[place], buffer)
        assert_near(ours[:64], values[f"a_after_train_{key}"], "one pass", key)
        ours = ours.double()
        for what, value in (("abssum", ours.abs().sum()), ("l2", ours.square().sum().sqrt())):
            assert value.item() == pytest.approx(row[what], rel=SUMS), (key, what)
        checked += 1
    assert checked == 5
    counts = {int(norm.num_batches_tracked) for norm in fresh.modules() if isinstance(norm, torch.nn.BatchNorm2d)}
    assert counts == {sums["num_batches_tracked_after_one_train_forward"]}


def test_every_stage_equals_the_authors(network):
    rows = GOLDEN.json("deeplab_stages_eval_a.json")
    with torch.no_grad():
        image = recorded("deeplab.input.a", IMAGES["a"])
        encoder, levels = network.encoder, network.features(image)
        stem = F.max_pool2d(encoder.bn1(encoder.conv1(image.flip(1))).relu(), 3, 2, 1, ceil_mode=True)
        maps = {"maxpool": stem} | {f"layer{i}": level for i, level in enumerate(levels, start=1)}
        maps |= {"layer5": network.classifiers["aux"](levels[2]), "layer6": network.classifiers["main"](levels[3])}
    assert maps.keys() == rows.keys()
    for name, ours in maps.items():
        row, ours = rows[name], ours.double().contiguous()
        assert list(ours.shape) == row["shape"]
        largest = ours.abs().max().item()
        np.testing.assert_allclose(ours.flatten()[:8], row["first8"], rtol=0, atol=SUMS * largest)
        assert ours.abs().sum().item() == pytest.approx(row["abssum"], rel=SUMS)
        assert ours.square().sum().sqrt().item() == pytest.approx(row["l2"], rel=SUMS)
        assert ours.sum().item() == pytest.approx(row["sum"], abs=SUMS * row["abssum"])


@pytest.mark.parametrize("case", ["up", "odd", "down", "same", "one"])
def test_upsampling_and_its_gradient_equal_the_authors(case):
    values = GOLDEN.npz("interp_align_corners.npz")
    cells = torch.from_numpy(GOLDEN.normal("interp.input", (1, 4, 9, 17))).requires_grad_()
    size = values[f"{case}_out_f64"].shape
    ours = upsample(cells, size[2:])
    ours.backward(torch.from_numpy(GOLDEN.normal(f"interp.grad.{case}", size)))
    assert_near(ours, values[f"{case}_out_f64"], "upsampling", case)
    assert_near(cells.grad, values[f"{case}_gradin_f64"], "upsampling", case)
    if case == "same":
        assert torch.equal(ours, cells)


def test_converted_back_it_is_the_authors_checkpoint_to_the_bit(run, tmp_path):
    convert(run, tmp_path / "back.pth", target="advent")
    ours, expected = torch.load(tmp_path / "back.pth", weights_only=True), theirs("deeplab")
    assert ours.keys() == expected.keys()
    for name, tensor in expected.items():
        assert ours[name].dtype == tensor.dtype and torch.equal(ours[name], tensor), name


def test_parameters_and_their_groups_are_the_authors(network):
    own = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in network.parameters()) == 44_601_560
    assert (sum(parameter.numel() for parameter in own), len(own)) == (44_496_216, 120)
    listed = GOLDEN.json("train_advent.json")["runs"]["native_float32"]["multiplicity"]
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = {group: {names[id(one)] for one in parameters} for group, parameters in network.groups().items()}
    times = {"stem": 1, "blocks": 3, "shortcuts": 4}
    backbone = {ours: times for name, times in listed["group0"].items() for ours in LAYOUTS["advent"].ours(name)}
    assert backbone == {name: times[group] for group in times for name in groups[group]}
    assert groups["head"] == {ours for name in listed["group1"] for ours in LAYOUTS["advent"].ours(name)}

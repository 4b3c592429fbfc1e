"""Evaluation against values recorded from the authors' code of ADVENT (`eval_UDA.py`, mode "single"), see
golden/advent_esl.

Integers are exact but for pixels whose two highest scores differ by less than 1e-3, where the rounding of another order
of sums may decide; the set says how many there are.
"""

import functools

import numpy as np
import pytest
import torch

import advent_weights
from evaluation.test_metrics import PROTOCOL
from golden import Golden
from segda.data.labels.spaces import SPACES
from segda.evaluation.certainty import labels, mean_logits
from segda.evaluation.inference import View
from segda.evaluation.metrics import Confusion, Report
from segda.scene import IGNORE

GOLDEN = Golden("advent_esl")
EVALUATED = ("eval_single.json", "eval_single.npz")
SIZE = (130, 258)
"""Of the labels: twice the images', which are 65 x 129."""

CLASSES = SPACES["cityscapes-19"].classes
VIEW_13 = "mIoU 13"


@functools.cache
def seen(case: str, index: int) -> list[View]:
    """Both networks' views of an image; the first one's alone for "single"."""
    return [view_of(kind, index) for kind in ("deeplab", "model2")[: 1 + (case == "ensemble")]]


@functools.cache
def network(kind: str):
    return advent_weights.network(kind).eval()


@functools.cache
def view_of(kind: str, index: int) -> View:
    image = advent_weights.recorded(f"eval.image.{index}", (1, 3, 65, 129))
    with torch.no_grad():
        return View(network(kind).low_res_logits(image), network(kind).align_corners, weight=0.5)


def label_of(index: int) -> torch.Tensor:
    name = f"eval.label.{index}"
    ignored = GOLDEN.integers(f"{name}.ignore", 0, 1000, (1, *SIZE)) < 100
    return torch.from_numpy(np.where(ignored, IGNORE, GOLDEN.integers(name, 0, 19, (1, *SIZE)))[0])


def report_of(pairs, names, views=()) -> Report:
    """The report of (label, prediction) pairs."""
    confusion = Confusion(len(names))
    for label, prediction in pairs:
        confusion.add(torch.as_tensor(label), torch.as_tensor(prediction))
    return Report(PROTOCOL, tuple(names), confusion.counts(), dict(views))


@pytest.mark.parametrize("case", ["single", "ensemble"])
def test_predictions_are_the_authors_wherever_no_two_classes_tie(case):
    theirs, facts = GOLDEN.npz(EVALUATED[1])[f"{case}_pred"], GOLDEN.json(EVALUATED[0])[case]
    close_calls = 0
    for index in range(2):
        ours = labels(seen(case, index), SIZE, "logits").numpy()
        two = torch.stack(list(mean_logits(seen(case, index), SIZE))).topk(2, dim=0).values
        tied = (two[0] - two[1] < 1e-3).numpy()
        close_calls += tied.sum()
        assert (ours == theirs[index])[~tied].all()
    # Our own rounding may carry a pixel over the limit.
    assert close_calls == pytest.approx(facts["pixels_with_top2_margin_below_1e-3"], abs=2)


@pytest.mark.parametrize("case", ["single", "ensemble"])
def test_counts_differ_by_no_more_than_the_pixels_that_tie(case):
    ours = report_of([(label_of(index), labels(seen(case, index), SIZE, "logits")) for index in range(2)], CLASSES)
    tied = GOLDEN.json(EVALUATED[0])[case]["pixels_with_top2_margin_below_1e-3"]
    # A pixel that is decided otherwise leaves one cell and enters another.
    assert np.abs(ours.counts[:19] - GOLDEN.npz(EVALUATED[1])[f"{case}_hist"]).sum() <= 2 * tied
    assert ours.counts[19].sum() == 0


@pytest.mark.parametrize("case", ["single", "ensemble"])
def test_the_authors_predictions_have_the_authors_counts_iou_and_mean(case):
    theirs, facts = GOLDEN.npz(EVALUATED[1]), GOLDEN.json(EVALUATED[0])[case]
    ours = report_of([(label_of(index), theirs[f"{case}_pred"][index]) for index in range(2)], CLASSES)
    assert (ours.counts[:19] == theirs[f"{case}_hist"]).all()
    np.testing.assert_allclose(ours.iou, facts["iou"], rtol=1e-14)
    assert round(100 * ours.miou, 2) == facts["miou_percent_rounded2"]


@pytest.mark.parametrize(("classes", "space"), [(19, "cityscapes-19"), (16, "synthia-16"), (7, "mapillary-7")])
def test_counts_are_fast_hist_and_iou_is_nan_for_a_class_on_neither_side_and_zero_on_one(classes, space):
    theirs, facts = GOLDEN.npz("hist.npz"), GOLDEN.json("hist.json")[f"c{classes}"]
    pairs = zip(theirs[f"c{classes}_label"], theirs[f"c{classes}_pred"], strict=True)
    ours = report_of(pairs, SPACES[space].classes)
    assert (ours.counts[:classes] == theirs[f"c{classes}_hist"]).all()
    wanted = np.array(facts["iou"], np.float64)  # None becomes NaN
    np.testing.assert_allclose(ours.iou, wanted, rtol=1e-14)
    assert round(100 * ours.miou, 2) == facts["miou_nanmean_percent_rounded2"]


def test_the_mean_of_thirteen_classes_leaves_out_wall_fence_and_pole():
    theirs, facts = GOLDEN.npz("hist.npz"), GOLDEN.json("hist.json")["c16"]
    space = SPACES["synthia-16"]
    ours = report_of(zip(theirs["c16_label"], theirs["c16_pred"], strict=True), space.classes, space.views)
    assert 100 * ours.view(VIEW_13) == pytest.approx(facts["miou13_percent"], rel=1e-13)
    assert set(space.classes) - set(space.views[VIEW_13]) == {"wall", "fence", "pole"}

"""Evaluation against recorded outputs of EB_DA / DAFormer (mmsegmentation 0.16): see
golden/README.md.
"""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from conformance.steps import authors_network
from evaluation.test_metrics import PROTOCOL
from golden import Golden
from segda.data.labels.spaces import SPACES
from segda.evaluation.certainty import labels, probabilities
from segda.evaluation.inference import View, boxes, slide, views
from segda.evaluation.metrics import Confusion, Report
from segda.recipes.keys import Evaluate
from segda.scene import windows


@pytest.fixture(scope="module")
def golden():
    return Golden("daformer_ebda")


@pytest.fixture(scope="module")
def theirs(golden):
    return golden.npz("miou.npz")


@pytest.fixture(scope="module")
def ours(theirs):
    names = SPACES["cityscapes-19"].classes
    confusion = Confusion(len(names))
    for index in range(3):
        confusion.add(torch.from_numpy(theirs[f"gt{index}"]), torch.from_numpy(theirs[f"pred{index}"]))
    return Report(PROTOCOL, names, confusion.counts())


def test_iou_and_accuracy_are_the_authors(ours, theirs):
    # The labels hold the id 30, which is no class: what is predicted there counts against the predicted
    # class.
    np.testing.assert_allclose(ours.iou, theirs["IoU"], rtol=1e-14)
    np.testing.assert_allclose(ours.accuracy, theirs["Acc"], rtol=1e-14)
    assert ours.pixel_accuracy == pytest.approx(float(theirs["aAcc"]), rel=1e-14)


def test_summary_numbers_are_those_the_authors_log(ours, golden):
    """They round to four digits; of a value in the middle of two, rounding decides which."""
    theirs = golden.json("miou.json")
    found = {"mIoU": ours.miou, "mAcc": ours.mean_accuracy, "aAcc": ours.pixel_accuracy}
    found |= {f"IoU.{name}": iou for name, iou in zip(ours.class_names, ours.iou, strict=True)}
    found |= {f"Acc.{name}": accuracy for name, accuracy in zip(ours.class_names, ours.accuracy, strict=True)}
    assert found.keys() == theirs.keys()
    for key, value in theirs.items():
        assert found[key] == pytest.approx(np.nan if value is None else value, abs=5e-5 + 1e-12, nan_ok=True), key


def test_logits_are_upsampled_twice_before_softmax_as_the_authors_do(golden):
    theirs = golden.npz("inference_whole.npz")
    size = theirs["argmax"].shape
    head = torch.from_numpy(theirs["logits_head"])  # stride 4 of 64 x 96 pixels
    seen = [View(interpolate(head, (64, 96), mode="bilinear", align_corners=False), align_corners=False)]
    prob = torch.stack(list(probabilities(seen, size)))
    np.testing.assert_allclose(prob.amax(0), theirs["prob_max"][0], atol=2e-6)
    # Where two classes are equal to the last bit, either may win.
    assert (labels(seen, size).numpy() != theirs["argmax"]).mean() < 1e-3


def test_the_mean_over_sizes_and_mirrored_images_is_the_authors(golden):
    theirs = golden.npz("inference_whole.npz")
    network = authors_network("", float(theirs["conv_seg_multiply"])).eval()
    # As a recipe says it: the recorded inputs are what an image becomes in these boxes.
    asked = Evaluate(resize=(96, 64), shape="stretch", how="whole", scales=(1, 0.75), flip=True)
    size = tuple(theirs["ori_shape"].tolist())
    shapes = {"input/whole": (3, 64, 96), "input/whole_small": (3, 48, 72)}
    assert boxes(size, asked) == [(width, height) for _, height, width in shapes.values()]
    shown = [torch.from_numpy(golden.normal(name, (1, *shape)))[0] for name, shape in shapes.items()]
    image = torch.zeros(3, *size, dtype=torch.uint8)
    seen = views(network, image, asked, torch.device("cpu"), nullcontext(), boxed=shown)
    np.testing.assert_allclose(seen[0].logits.numpy(), theirs["logits_input"], atol=5e-5)
    prob = torch.stack(list(probabilities(seen, size)))
    np.testing.assert_allclose(prob.amax(0), theirs["aug_prob_max"][0], atol=2e-5)
    assert (labels(seen, size).numpy() != theirs["aug_argmax"]).mean() < 1e-3


def test_the_mean_over_windows_is_the_authors(golden):
    theirs = golden.npz("inference_slide.npz")
    network = authors_network("", float(theirs["conv_seg_multiply"])).eval()
    image = torch.from_numpy(golden.normal("input/slide", (1, 3, 80, 110)))
    window, stride = (tuple(theirs[key].tolist()) for key in ("crop_size", "stride"))
    with torch.no_grad():
        logits = slide(network, image, window, stride)
    # Their own rounding, float32 against float64: 1e-6 of logits that are eight times as large here.
    np.testing.assert_allclose(logits.numpy(), theirs["logits"], atol=5e-5)
    seen, size = [View(logits, align_corners=False)], tuple(theirs["ori_shape"].tolist())
    prob = torch.stack(list(probabilities(seen, size)))
    np.testing.assert_allclose(prob.amax(0), theirs["prob_max"][0], atol=2e-5)
    assert (labels(seen, size).numpy() != theirs["argmax"]).mean() < 1e-3


def test_windows_lie_where_the_authors_put_them():
    # Their slide fixture: 80 x 110 pixels, windows of 64 every 42, shifted back to stay inside.
    assert windows(80, 64, 42) == [0, 16]
    assert windows(110, 64, 42) == [0, 42, 46]

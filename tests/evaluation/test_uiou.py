"""UIoU: the definition by hand, and on data with masks of what nobody could tell; what of masks is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from segda.data.labels.spaces import space_named
from segda.data.sets.datasets import open_data
from segda.errors import DataError, RunError
from segda.evaluation.measure import evaluate_network
from segda.evaluation.metrics import Recognised, Report, read_reports, uiou_thresholds, write_reports
from segda.recipes.keys import Evaluate

SPACE = space_named("cityscapes-19")
SIZE = (4, 6)


class Even(nn.Module):
    """A network that says one class everywhere, as surely as it is told."""

    class_names = SPACE.classes
    align_corners = False

    def __init__(self, sure: float):
        super().__init__()
        rest = (1 - sure) / (len(SPACE.classes) - 1)
        self.prob = torch.tensor([sure] + [rest] * (len(SPACE.classes) - 1))

    def low_res_logits(self, image: torch.Tensor) -> torch.Tensor:
        return self.prob.log()[None, :, None, None].expand(1, -1, *image.shape[-2:])


def counted(label, invalid, prediction, confidence, thresholds=(0.5,), classes=2) -> Recognised:
    ours = Recognised(classes, thresholds)
    ours.add(torch.tensor(label), torch.tensor(invalid), torch.tensor(prediction), torch.tensor(confidence))
    return ours


def test_six_pixels_by_hand():
    """H = 0 0 0 0 1 1, J = 0 0 1 1 0 0, predicted 0, nothing, nothing, 1, 0, 1: UIoU of class 0 is 2/5 [spec, 5.8]."""
    ours = counted(
        [0, 0, 0, 0, 1, 1], [False, False, True, True, False, False], [0, 0, 0, 1, 0, 1], [0.9, 0.4, 0.3, 0.9, 0.9, 0.9]
    )
    true, left_out, false, missed, silent = ours.counts()[0][:, 0].tolist()
    assert (true, left_out, false, missed, silent) == (1, 1, 1, 1, 1)
    # Class 1: one right, one taken for 0 falsely, one of class 0 predicted as 1: 1 / 3.
    assert ours.rates() == [pytest.approx((2 / 5 + 1 / 3) / 2)]


def test_a_pixel_exactly_as_sure_as_the_threshold_is_said():
    ours = counted([0, 0], [False, False], [0, 0], [0.5, 0.49])
    assert ours.counts()[0][:, 0].tolist() == [1, 0, 0, 0, 1]


def test_ignored_pixels_do_not_count_and_where_all_is_said_it_is_iou():
    rng = np.random.default_rng(0)
    label, prediction = rng.integers(0, 3, (2, 50))
    label[:10] = 255
    ours = counted(
        label.astype(np.uint8), rng.random(50) < 0.3, prediction.astype(np.uint8), rng.uniform(0.34, 1, 50),
        (1 / 3,), 3,
    )  # fmt: skip
    iou = [
        ((label == c) & (prediction == c)).sum() / (((label == c) | (prediction == c)) & (label < 255)).sum()
        for c in range(3)
    ]
    assert ours.rates() == [pytest.approx(np.mean(iou))]
    assert ours.counts()[0][[0, 1, 3, 4]].sum() == 40


def test_thresholds_begin_where_uiou_is_iou():
    assert uiou_thresholds(19) == (1 / 19, *(tenth / 10 for tenth in range(1, 10)))
    assert uiou_thresholds(2) == (0.5, 0.6, 0.7, 0.8, 0.9)


@pytest.fixture
def zurich(tmp_path):
    """Two images of Dark Zurich's val with labels: left road, right car; the right half is invalid in the first."""
    for name, half in (("GOPR0356_frame_000321", True), ("GOPR0356_frame_000324", False)):
        label = np.zeros(SIZE, np.uint8)
        label[:, 3:] = SPACE.classes.index("car")
        mask = np.zeros(SIZE, np.uint8)
        mask[:, 3:] = half
        where = {
            f"rgb_anon/val/night/GOPR0356/{name}_rgb_anon.png": np.zeros((*SIZE, 3), np.uint8),
            f"gt/val/night/GOPR0356/{name}_gt_labelTrainIds.png": label,
            f"gt/val/night/GOPR0356/{name}_gt_invIds.png": mask,
        }
        for path, pixels in where.items():
            file = tmp_path / "dark_zurich" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    return tmp_path


SETTINGS = Evaluate(resize=None, how="whole")


def measured(root) -> Report:
    """Of a network that says road everywhere, with a probability of 0.55."""
    network = Even(0.55)
    known = {"weights": "student", "step": 1, "recipe": "toy", "precision": "float32", "statistics": None}
    data = open_data("dark-zurich:val", root, SPACE)
    return evaluate_network(network, data, SETTINGS, torch.device("cpu"), torch.no_grad(), known)


def test_a_report_on_data_with_masks_has_uiou(zurich):
    report = measured(zurich)
    # Road 24 right of 48 in all; car has none. Sure or not: from 0.6 on nothing is said, right in 12 of 48 pixels.
    assert report.uiou[0.5] == pytest.approx((24 / 48 + 0) / 2) == report.uiou[1 / 19] == report.miou
    assert report.uiou[0.6] == pytest.approx((0 / 24 + 12 / 24) / 2)
    (remark,) = [one for one in report.remarks() if one.startswith("UIoU")]
    assert "25.0 (0.50), 25.0 (0.60)" in remark and "unverified" in remark


def test_uiou_survives_json_and_damaged_counts_are_refused(zurich, tmp_path):
    report = measured(zurich)
    path = write_reports(tmp_path, [report])
    (again,) = read_reports(tmp_path)
    assert again.uiou == report.uiou and again.miou == report.miou
    table = json.loads(path.read_text())
    table[0]["uiou"][0]["counts"] = [[1]]
    path.write_text(json.dumps(table))
    with pytest.raises(RunError, match=r"counts of shape \(1, 1\)"):
        read_reports(tmp_path)


def test_without_masks_nothing_is_said_of_uiou(zurich, said):
    paths = sorted(zurich.rglob("*_gt_invIds.png"))
    paths[0].unlink()
    report = measured(zurich)
    assert report.uiou == {} and any("1 of 2 images have a mask" in line for line in said)
    paths[1].unlink()
    said.clear()
    report = measured(zurich)
    assert report.to_json()["uiou"] == [] and not said
    assert not any(one.startswith("UIoU") for one in report.remarks())


def test_grey_masks_are_read_and_other_values_and_sizes_refused(zurich):
    for path in zurich.rglob("*_gt_invIds.png"):
        grey = path.with_name(path.name.replace("invIds", "invGray"))
        with Image.open(path) as picture:
            Image.fromarray(np.array(picture) * 255).save(grey)
        path.unlink()
    assert measured(zurich).uiou[0.6] == pytest.approx(0.25)
    Image.fromarray(np.full(SIZE, 128, np.uint8)).save(grey)
    with pytest.raises(DataError, match=r"invGray.png has the value 128 \(24 pixels\), where 0 and 255 are known"):
        measured(zurich)
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(grey)
    with pytest.raises(DataError, match="is 6x4, its mask of what cannot be told 2x2"):
        measured(zurich)

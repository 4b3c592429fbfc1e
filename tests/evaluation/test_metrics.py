"""Confusion, Report and Protocol against a value worked by hand, a float64 twin, and what JSON must keep."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from segda.data.labels.spaces import SPACES
from segda.errors import RunError
from segda.evaluation.metrics import Confusion, Report, read_reports, report_path, write_reports
from segda.evaluation.protocol import EnsembleProtocol, Member, Protocol
from segda.scene import IGNORE

PROTOCOL = Protocol(
    data="camvid:test:dusk",
    images=1,
    weights="student",
    step=40,
    recipe="ebda camvid:train:day -> camvid:train:dusk",
    resize=(480, 360),
    how="whole",
    window=None,
    stride=None,
    flip=False,
    precision="float32",
)


def report_of(label, prediction, names, protocol=PROTOCOL):
    confusion = Confusion(len(names))
    confusion.add(torch.as_tensor(label), torch.as_tensor(prediction))
    return Report(protocol, tuple(names), confusion.counts())


def twin(labels, predictions, classes):
    """IoU and accuracy from the definition: sets of pixel positions, float64, one class at a time."""
    iou, accuracy = [], []
    for c in range(classes):
        both = either = labelled = 0
        for label, prediction in zip(labels, predictions, strict=True):
            for y, p in zip(label.flatten().tolist(), prediction.flatten().tolist(), strict=True):
                if y == IGNORE:
                    continue
                both += y == c and p == c
                either += y == c or p == c
                labelled += y == c
        iou.append(both / either if either else math.nan)
        accuracy.append(both / labelled if labelled else math.nan)
    return np.array(iou), np.array(accuracy)


def test_two_by_two_pixels_by_hand():
    # label    0 0    prediction 0 1      class 0: 1 hit, 2 labelled, 1 predicted -> IoU 1/2, accuracy 1/2
    #          1 -               1 0      class 1: 1 hit, 1 labelled, 2 predicted -> IoU 1/2, accuracy 1/1
    ours = report_of([[0, 0], [1, IGNORE]], [[0, 1], [1, 0]], ("road", "sky"))
    assert ours.iou.tolist() == [0.5, 0.5]
    assert ours.accuracy.tolist() == [0.5, 1.0]
    assert (ours.miou, ours.mean_accuracy) == (0.5, 0.75)
    assert ours.pixel_accuracy == 2 / 3
    assert ours.share.tolist() == [2 / 3, 1 / 3]


def test_a_class_nobody_labels_or_predicts_does_not_enter_the_mean():
    ours = report_of([[0, 0]], [[0, 0]], ("road", "sky", "car"))
    assert ours.miou == 1 and ours.mean_accuracy == 1
    assert np.isnan(ours.iou[1:]).all()


def test_a_class_predicted_but_not_labelled_has_iou_zero_and_no_accuracy():
    ours = report_of([[0, 0]], [[0, 1]], ("road", "sky"))
    assert ours.iou.tolist() == [0.5, 0.0]
    assert ours.accuracy[0] == 0.5 and math.isnan(ours.accuracy[1])
    assert (ours.miou, ours.mean_accuracy) == (0.25, 0.5)


@pytest.mark.parametrize("label", [2, 30, 254])
def test_a_label_that_is_no_class_makes_every_prediction_on_it_wrong(label):
    ours = report_of([[0, label]], [[0, 0]], ("road", "sky"))
    assert ours.iou[0] == 0.5
    assert ours.accuracy[0] == 1 and ours.pixel_accuracy == 1


def test_nothing_but_ignored_pixels_has_no_rates_at_all():
    ours = report_of([[IGNORE, IGNORE]], [[0, 1]], ("road", "sky"))
    assert math.isnan(ours.miou) and math.isnan(ours.mean_accuracy) and math.isnan(ours.pixel_accuracy)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_rates_of_several_images_are_those_of_all_their_pixels_together(dtype):
    rng = np.random.default_rng(3)
    classes = 5
    labels = [rng.choice([0, 1, 2, 3, 9, IGNORE], (7, 5 + k)) for k in range(3)]
    predictions = [rng.integers(0, classes, label.shape) for label in labels]
    confusion = Confusion(classes)
    for label, prediction in zip(labels, predictions, strict=True):
        confusion.add(torch.from_numpy(label).to(dtype), torch.from_numpy(prediction).to(dtype))
    ours = Report(PROTOCOL, tuple("abcde"), confusion.counts())
    iou, accuracy = twin(labels, predictions, classes)
    np.testing.assert_allclose(ours.iou, iou, rtol=1e-15)
    np.testing.assert_allclose(ours.accuracy, accuracy, rtol=1e-15)
    assert ours.counts.sum() == sum(int((label != IGNORE).sum()) for label in labels)


def test_counts_do_not_overflow_the_type_of_the_maps():
    label = torch.full((300, 300), 18, dtype=torch.uint8)
    confusion = Confusion(19)
    confusion.add(label, label)
    assert confusion.counts()[18, 18] == 300 * 300
    assert confusion.counts().sum() == 300 * 300


def test_maps_are_not_changed_by_counting():
    label, prediction = torch.ones(2, 2, dtype=torch.int32), torch.ones(2, 2, dtype=torch.int32)
    Confusion(3).add(label, prediction)
    assert label.eq(1).all() and prediction.eq(1).all()


def test_a_report_survives_json_and_absent_classes_are_null_in_it(tmp_path):
    there = report_of([[0, 0], [1, IGNORE]], [[0, 1], [1, 0]], ("road", "sky", "car"))
    path = write_reports(tmp_path, [there])
    assert path == report_path(tmp_path, "camvid:test:dusk") == tmp_path / "reports" / "camvid-test-dusk.json"
    table = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert table[0]["iou"] == {"road": 0.5, "sky": 0.5, "car": None}
    assert table[0]["protocol"]["resize"] == [480, 360]
    (back,) = read_reports(tmp_path)
    assert back.protocol == PROTOCOL and back.class_names == there.class_names
    assert (back.counts == there.counts).all()


@pytest.mark.parametrize("text", ["", "[{]", "[{}]", "3", '[{"protocol": 1}]', "[null]"])
def test_a_damaged_report_is_named_and_says_the_way_out(tmp_path, text):
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "camvid-val.json").write_text(text)
    with pytest.raises(RunError, match=r"camvid-val\.json.*segda evaluate") as caught:
        read_reports(tmp_path)
    assert "\n" not in str(caught.value)


def test_counts_of_another_number_of_classes_are_refused(tmp_path):
    table = report_of([[0]], [[0]], ("road", "sky")).to_json()
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "x.json").write_text(json.dumps([{**table, "classes": ["road"]}]))
    with pytest.raises(RunError, match="for 1 classes"):
        read_reports(tmp_path)


def test_a_view_is_the_mean_over_its_classes_of_the_same_confusion():
    # IoU by hand: road 1/2, sky 1/3 (the pixel of car is said to be sky), car 0, bus neither labelled nor predicted.
    whole = report_of([[0, 0, 1, 2]], [[0, 1, 1, 1]], ("road", "sky", "car", "bus"))
    ours = replace(whole, views={"mIoU 2": ("sky", "road"), "mIoU rare": ("car", "bus"), "mIoU bus": ("bus",)})
    assert ours.miou == pytest.approx((1 / 2 + 1 / 3 + 0) / 3)
    assert ours.view("mIoU 2") == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert ours.view("mIoU rare") == 0 and math.isnan(ours.view("mIoU bus"))
    names = ["mIoU", "mIoU 2", "mIoU rare", "mIoU bus", "mean accuracy", "pixel accuracy"]
    assert list(ours.rates()) == names


def test_a_view_of_groups_counts_a_class_taken_for_another_of_its_group_as_right():
    # road for sidewalk is right in the group of both, car for road is not; pole is alone.
    names = ("road", "sidewalk", "car", "pole")
    label, prediction = [[0, 0, 1, 1, 2, 2, 3, 3]], [[0, 1, 0, 2, 2, 0, 3, 3]]
    ours = replace(report_of(label, prediction, names), views={"groups": (("road", "sidewalk"), "car", ("pole",))})
    flat = 3 / (4 + 4 - 3)  # 4 labelled, 4 predicted, 3 of them both
    assert ours.view("groups") == pytest.approx((flat + 1 / 3 + 1) / 3)
    # A second way: merge the classes first, then count.
    merged = np.array([0, 0, 1, 2])
    theirs = report_of(merged[label].tolist(), merged[prediction].tolist(), ("flat", "car", "pole"))
    assert ours.view("groups") == pytest.approx(theirs.miou)
    back = Report.from_json(json.loads(json.dumps(ours.to_json())))
    assert back.views == ours.views and back.rates() == ours.rates()


@pytest.mark.parametrize("name", ["cityscapes-19", "synthia-19", "synthia-16"])
def test_all_views_come_from_one_confusion_matrix(name):
    space = SPACES[name]
    rng = np.random.default_rng(3)
    label = rng.integers(0, len(space.classes), (1, 500))
    prediction = np.where(rng.random((1, 500)) < 0.6, label, rng.integers(0, len(space.classes), (1, 500)))
    ours = replace(report_of(label.tolist(), prediction.tolist(), space.classes), views=space.views)
    seven = SPACES["mapillary-7"]
    to = np.array([seven.classes.index(seven.class_of(one, "cityscapes-train")) for one in space.classes])
    theirs = report_of(to[label].tolist(), to[prediction].tolist(), seven.classes)
    assert ours.rates()["mIoU 7"] == pytest.approx(theirs.miou)
    of = dict(zip(space.classes, ours.iou, strict=True))
    thirteen = [of[one] for one in of if one not in ("wall", "fence", "pole", "terrain", "truck", "train")]
    assert len(thirteen) == 13 and ours.rates()["mIoU 13"] == pytest.approx(np.mean(thirteen))


def test_views_survive_json(tmp_path):
    there = replace(
        report_of([[0, 1]], [[0, 0]], ("road", "sky")), views={"mIoU 1": ("road",), "mIoU of sky": ("sky",)}
    )
    path = write_reports(tmp_path, [there])
    (table,) = json.loads(path.read_text())
    assert table["views"] == {
        "mIoU 1": {"miou": 0.5, "classes": ["road"]},
        "mIoU of sky": {"miou": 0.0, "classes": ["sky"]},
    }
    (back,) = read_reports(tmp_path)
    assert back.views == there.views and back.rates() == there.rates()


def test_a_report_from_before_views_and_kernels_is_read():
    table = report_of([[0]], [[0]], ("road", "sky")).to_json()
    del table["views"], table["protocol"]["shape"], table["protocol"]["kernel"]
    back = Report.from_json(table)
    assert back.views == {} and back.protocol == PROTOCOL


def test_a_view_of_unknown_classes_is_refused(tmp_path):
    table = report_of([[0]], [[0]], ("road", "sky")).to_json() | {"views": {"mIoU 1": {"classes": ["car"]}}}
    (tmp_path / "reports").mkdir()
    for classes in (["car"], [["road", "car"]]):
        table["views"]["mIoU 1"]["classes"] = classes
        (tmp_path / "reports" / "x.json").write_text(json.dumps([table]))
        with pytest.raises(RunError, match="mIoU 1"):
            read_reports(tmp_path)


def test_a_protocol_says_how_images_got_into_the_box():
    stretched = replace(PROTOCOL, shape="stretch", kernel="bicubic")
    assert stretched.input() == "stretched to 480x360 (bicubic), whole, no mirroring"
    assert replace(PROTOCOL, shape="pad").input() == "fitted into 480x360 and padded, whole, no mirroring"


def test_an_ensembles_protocol_survives_json():
    members = (
        Member("runs/a", 0.25, PROTOCOL),
        Member("runs/b", 0.75, replace(PROTOCOL, window=(4, 6), stride=(2, 3), how="slide")),
    )
    there = replace(report_of([[0]], [[0]], ("road", "sky")), protocol=EnsembleProtocol("logits", members))
    table = json.loads(json.dumps(there.to_json()))
    assert table["protocol"]["data"] == "camvid:test:dusk" and table["protocol"]["mean"] == "logits"
    assert Report.from_json(table).protocol == there.protocol
    with pytest.raises(ValueError, match="without members"):
        Report.from_json({**table, "protocol": {"mean": "logits", "members": []}})


def test_a_protocol_says_how_images_reached_the_network():
    assert PROTOCOL.sentence() == (
        "camvid:test:dusk, 1 images fitted into 480x360, whole, no mirroring;"
        " student of ebda camvid:train:day -> camvid:train:dusk after step 40, float32"
    )
    sliding = replace(PROTOCOL, resize=None, how="slide", window=(64, 96), stride=(42, 48), flip=True)
    assert sliding.input() == "at their size, window 96x64 every 48x42, mean with mirrored"


def test_a_mean_over_some_classes_leaves_the_others_out_by_hand():
    # label 0 0 1 2, prediction 0 1 1 0: IoU of 0 is 1/3, of 1 is 1/2, of 2 is 0
    label, prediction = [[0, 0], [1, 2]], [[0, 1], [1, 0]]
    ours = report_of(label, prediction, ("road", "car", "sky"), replace(PROTOCOL, over=("road", "car")))
    assert ours.miou == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert np.isnan(ours.iou[2]) and np.isnan(ours.accuracy[2])
    assert ours.mean_accuracy == pytest.approx((1 / 2 + 1) / 2) and ours.pixel_accuracy == pytest.approx(2 / 3)
    assert ours.remarks() == ["mean over 2 of 3 classes: road, car"]
    again = Report.from_json(json.loads(json.dumps(ours.to_json())))
    assert again.protocol == ours.protocol and again.miou == ours.miou
    broken = ours.to_json()
    broken["protocol"]["over"] = ["road", "boat"]
    with pytest.raises(ValueError, match="classes that are not in the report"):
        Report.from_json(broken)


@pytest.mark.parametrize(("prediction", "miou"), [([[0, 0]], 1.0), ([[0, 1]], 0.25)])
def test_a_class_without_a_labelled_pixel_is_said(prediction, miou):
    ours = report_of([[0, 0]], prediction, ("bg", "fg"))
    assert ours.miou == miou
    assert ours.remarks() == ["no labelled pixel of fg: IoU 0 where predicted, else left out"]
    assert report_of([[0, 1]], prediction, ("bg", "fg")).remarks() == []

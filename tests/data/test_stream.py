"""The training stream: draws with an address, whoever makes them; rare classes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from segda.data.labels.spaces import SPACES
from segda.data.sets import files as file_sets
from segda.data.sets.class_statistics import class_statistics
from segda.data.sets.dataset import DataSet
from segda.data.sets.datasets import open_data
from segda.data.stream.augment import draw_box
from segda.data.stream.loading import loader
from segda.data.stream.settings import Augment, Balanced, RareClass
from segda.data.stream.stream import SOURCE, Stream, class_probabilities
from segda.errors import DataError, ImageError, RecipeError
from segda.scene import Batch, Scene

CROP = Augment(resize=None, crop=(32, 32), max_class_share=None, flip=0.5)
LIMITED = CROP.model_copy(update={"max_class_share": 0.75})
WHOLE = Augment(resize=None, crop=None, max_class_share=None, flip=0)


def pairs_of(root: Path, seed: int = 3, **given) -> Stream:
    source, target = open_data("camvid:train:day", root), open_data("camvid:train:dusk", root)
    return Stream(source, target, seed, LIMITED, CROP, **given)


def batches_of(*given, **named) -> Iterator[Batch]:
    """The batches of a training that is one process."""
    return (batch for (batch,) in loader(*given, **named))


def equal(ours: Scene, theirs: Scene) -> bool:
    labels = (ours.label, theirs.label)
    same = labels == (None, None) or torch.equal(*labels)
    return torch.equal(ours.image, theirs.image) and ours.names == theirs.names and same


def same_batch(ours: Batch, theirs: Batch) -> bool:
    drawn = [batch.share.rng("gate").integers(0, 2**60) for batch in (ours, theirs)]
    return equal(ours.source, theirs.source) and equal(ours.target, theirs.target) and drawn[0] == drawn[1]


def test_a_draw_is_a_function_of_seed_and_number_in_any_order(camvid):
    first, second, other = pairs_of(camvid), pairs_of(camvid), pairs_of(camvid, seed=4)
    forward = [first[n] for n in range(8)]
    backward = [second[n] for n in reversed(range(8))][::-1]
    torch.manual_seed(0)  # global state has no say
    for n, (source, target, *_) in enumerate(forward):
        for theirs in (backward[n], first[n]):
            assert equal(source, theirs[0]) and equal(target, theirs[1])
    assert not all(equal(forward[n][0], other[n][0]) for n in range(8))
    assert not all(equal(forward[n][1], other[n][1]) for n in range(8))


def test_a_draw_has_a_labelled_source_and_an_unlabelled_target(camvid):
    source, target, *_ = pairs_of(camvid)[0]
    assert source.label.shape == (32, 32) and target.label is None
    assert not source.names[0].startswith("0001TP") and target.names[0].startswith("0001TP")


def test_every_image_is_used_once_an_epoch_and_each_epoch_has_an_order_of_its_own(camvid):
    pairs = pairs_of(camvid)
    for side, count, names in ((0, 4, pairs.source.names), (1, 3, pairs.target.names)):
        drawn = [pairs[n][side].names[0] for n in range(6 * count)]
        epochs = [tuple(drawn[k : k + count]) for k in range(0, len(drawn), count)]
        assert all(sorted(epoch) == sorted(names) for epoch in epochs)
        assert len(set(epochs)) > 1


def test_source_and_target_are_cropped_independently(camvid):
    # One image as both domains: equal crops would be one draw used twice.
    data = open_data("camvid:train:day", camvid)
    pairs = Stream(data, data, 0, CROP, CROP)
    same = [pair for pair in (pairs[n] for n in range(40)) if pair[0].names == pair[1].names]
    assert len(same) > 2
    assert not all(torch.equal(source.image, target.image) for source, target, *_ in same)


@pytest.mark.parametrize("workers", [1, 4])
def test_workers_change_no_batch(camvid, workers):
    pairs = pairs_of(camvid)
    alone = list(batches_of(pairs, 2, 0, 5, 0, seed=3))
    together = list(batches_of(pairs, 2, 0, 5, workers, seed=3))
    assert len(alone) == len(together) == 5
    assert all(same_batch(*batches) for batches in zip(together, alone, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_that_starts_later_goes_on_as_the_whole_one(camvid, workers):
    pairs = pairs_of(camvid)
    whole = list(batches_of(pairs, 2, 0, 6, 0, seed=3))
    late = list(batches_of(pairs, 2, 4, 6, workers, seed=3))
    assert len(late) == 2
    assert all(same_batch(*batches) for batches in zip(late, whole[4:], strict=True))
    assert list(batches_of(pairs, 2, 6, 6, workers, seed=3)) == []


def test_a_batch_stacks_its_draws_and_each_step_has_random_numbers_of_its_own(camvid):
    pairs = pairs_of(camvid)
    batches = list(batches_of(pairs, 2, 0, 3, 0, seed=3))
    for step, batch in enumerate(batches):
        for k in range(2):
            source, target, *_ = pairs[2 * step + k]
            assert torch.equal(batch.source.image[k], source.image) and torch.equal(batch.source.label[k], source.label)
            assert torch.equal(batch.target.image[k], target.image)
            assert (batch.source.names[k], batch.target.names[k]) == source.names + target.names
    assert len({batch.share.rng("gate").integers(0, 2**60) for batch in batches}) == 3


def test_torchs_global_random_numbers_are_left_alone(camvid):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    list(batches_of(pairs_of(camvid), 1, 0, 2, 0, seed=3))
    list(batches_of(pairs_of(camvid), 1, 0, 2, 1, seed=3))
    assert torch.equal(torch.get_rng_state(), before)


def test_target_labels_have_no_say_in_the_stream(camvid):
    before = [pairs_of(camvid)[n] for n in range(6)]
    for label in (camvid / "camvid" / "trainannot").glob("0001TP*"):
        label.unlink()
    after = pairs_of(camvid)
    for n, (source, target, *_) in enumerate(before):
        assert equal(after[n][0], source) and equal(after[n][1], target)


def test_a_class_limit_on_the_target_is_refused(camvid):
    data = open_data("camvid:train", camvid)
    with pytest.raises(RecipeError, match=r"^data.target.augment.max_class_share: target labels are never read"):
        Stream(data, data, 0, LIMITED, LIMITED)


def test_a_source_that_lacks_labels_is_refused_before_the_first_draw(camvid):
    next((camvid / "camvid" / "trainannot").glob("0006R0*")).unlink()
    with pytest.raises(DataError, match="1 of 4 images have no label"):
        pairs_of(camvid)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_draw_is_raised_plainly_at_its_step(camvid, workers):
    pairs = pairs_of(camvid)
    wanted = pairs[3][0].names[0]
    path = camvid / "camvid" / "train" / f"{wanted}.png"
    path.write_bytes(path.read_bytes()[:-20])
    batches = batches_of(pairs, 1, 0, 8, workers, seed=3)
    done = []
    with pytest.raises(DataError) as caught:
        done.extend(batches)
    assert type(caught.value) is ImageError and str(caught.value).startswith(f"{path}: cut off after")
    assert "\n" not in str(caught.value)
    batches = batches_of(pairs, 1, 0, 8, workers, seed=3)
    assert [next(batches).source.names[0] for _ in range(3)] == [pairs[n][0].names[0] for n in range(3)]
    with pytest.raises(DataError):
        next(batches)


def test_images_of_several_sizes_need_a_crop(camvid):
    path = camvid / "camvid" / "train" / "0001TP_001.png"
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(path)
    source, target = open_data("camvid:train:day", camvid), open_data("camvid:train:dusk", camvid)
    message = r"^target images of one batch differ in size \(30x20, 64x48\); give data.target.augment.crop$"
    with pytest.raises(DataError, match=message):
        list(batches_of(Stream(source, target, 0, CROP, WHOLE), 3, 0, 1, 0, seed=0))
    assert len(list(batches_of(Stream(source, target, 0, CROP, CROP), 3, 0, 1, 0, seed=0))) == 1


# Rare classes.


def rare_class(**given) -> RareClass:
    return RareClass(**{"temperature": 0.1, "min_pixels": 100, "crop_ratio": 0.5, "retries": 0} | given)


def write_source(root: Path, labels: dict[str, np.ndarray]) -> DataSet:
    for name, label in labels.items():
        for folder, pixels in (("train", np.zeros((*label.shape, 3), np.uint8)), ("trainannot", label)):
            path = root / "camvid" / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return open_data("camvid:train", root)


def corner(height: int, width: int, name: str = "pole") -> np.ndarray:
    """A label of 40 x 80 pixels: road, and a class in the corner below right."""
    classes = SPACES["camvid-11"].classes
    label = np.full((40, 80), classes.index("road"), np.uint8)
    label[40 - height :, 80 - width :] = classes.index(name)
    return label


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1, math.inf])
def test_class_probabilities_are_the_softmax_of_rarity(temperature):
    counts = [6000, 3000, 900, 99, 1]
    power = [math.exp((1 - n / sum(counts)) / temperature) for n in counts]
    ours = class_probabilities(np.array(counts), temperature)
    assert ours.dtype == np.float64 and ours.sum() == pytest.approx(1, abs=1e-15)
    np.testing.assert_allclose(ours, [p / sum(power) for p in power], rtol=1e-12)


def test_classes_that_cannot_be_drawn_have_probability_zero_and_the_others_keep_their_ratios():
    counts = np.array([500, 0, 400, 100])
    every = class_probabilities(counts, 0.3)
    assert every[1] == 0
    ours = class_probabilities(counts, 0.3, np.array([True, True, False, True]))
    assert ours[[1, 2]].tolist() == [0, 0] and ours.sum() == pytest.approx(1)
    assert ours[0] / ours[3] == pytest.approx(every[0] / every[3], rel=1e-12)
    # exp(100 x rarity) alone would overflow.
    assert np.isfinite(class_probabilities(np.array([1, 10**9]), 1e-4)).all()


def test_classes_are_drawn_by_their_probability_and_only_images_with_enough_serve_them(tmp_path):
    labels = {"a": corner(10, 10), "b": corner(10, 11), "c": corner(20, 20, "car"), "d": corner(2, 2, "car")}
    source = write_source(tmp_path, labels)
    pairs = Stream(source, source, 0, CROP, CROP, rare_class(), class_statistics(source, None))
    road, pole, car = (source.space.classes.index(name) for name in ("road", "pole", "car"))
    # More than 100 pixels: 10 x 10 is too little, 10 x 11 enough.
    assert [images.tolist() for images in (pairs.images_of[c] for c in (road, pole, car))] == [[0, 1, 2, 3], [1], [2]]
    rng = np.random.default_rng(0)
    draws = [pairs.pick(rng) for _ in range(4000)]
    assert all(i in pairs.images_of[wanted] for wanted, i in draws)
    often = Counter(wanted for wanted, _ in draws)
    pixels = {road: 4 * 3200 - 100 - 110 - 400 - 4, pole: 210, car: 404}
    power = {c: math.exp((1 - n / 12800) / 0.1) for c, n in pixels.items()}
    assert often.keys() == {pole, car} | ({road} & often.keys())
    for c, p in power.items():
        p /= sum(power.values())
        assert abs(often[c] / 4000 - p) < 4 * math.sqrt(p * (1 - p) / 4000) + 1e-9


def test_a_class_that_no_image_has_enough_of_is_said_and_never_drawn(tmp_path, warned):
    source = write_source(tmp_path, {"a": corner(20, 20, "car"), "b": corner(2, 2, "pole")})
    pairs = Stream(source, source, 0, CROP, CROP, rare_class(), class_statistics(source, None))
    (said,) = warned
    names = ("sky", "building", "pole", "pavement", "tree", "sign symbol", "fence", "pedestrian", "bicyclist")
    assert said == f"camvid:train: no image has enough of {', '.join(names)} to be drawn for it"
    assert {source.space.classes[c] for c in np.flatnonzero(pairs.probability)} == {"road", "car"}
    assert {pairs.pick(np.random.default_rng(k))[0] for k in range(50)} <= set(np.flatnonzero(pairs.probability))


def test_no_image_with_enough_of_any_class_is_an_error(tmp_path):
    source = write_source(tmp_path, {"a": corner(2, 2)})
    with pytest.raises(DataError, match=r"^camvid:train: no image has more than 3200 pixels of any class; lower data"):
        Stream(source, source, 0, CROP, CROP, rare_class(min_pixels=3200), class_statistics(source, None))
    with pytest.raises(DataError, match=r"no image has more than 99.90% of its pixels of any class"):
        settings = rare_class(min_pixels=None, min_share=0.999)
        Stream(source, source, 0, CROP, CROP, settings, class_statistics(source, None))


def only(pairs: Stream, name: str) -> int:
    """Makes a class the only one that is drawn; its train id."""
    wanted = pairs.source.space.classes.index(name)
    pairs.probability = np.eye(len(pairs.probability))[wanted]
    return wanted


@pytest.mark.parametrize("threshold", [{"min_pixels": 400}, {"min_pixels": None, "min_share": 0.2}])
def test_a_crop_is_drawn_again_until_it_has_enough_of_its_class(tmp_path, threshold):
    source = write_source(tmp_path, {"a": corner(30, 30)})  # 900 of 3200 pixels
    statistics = class_statistics(source, None)
    # More than 0.5 x 400 pixels; more than 0.5 x 0.2 of 32 x 32.
    least = 200 if threshold["min_pixels"] else 102.4

    def pixels(retries: int) -> list[int]:
        pairs = Stream(source, source, 0, CROP, CROP, rare_class(retries=retries, **threshold), statistics)
        pole = only(pairs, "pole")
        return [int((pairs[n][0].label == pole).sum()) for n in range(30)]

    assert least < min(pixels(100)) < 1.5 * least
    assert min(pixels(0)) <= least, "the last draw is used whatever it holds"


def test_a_crop_is_drawn_as_often_again_as_is_said_unless_it_has_more_than_the_least(tmp_path, monkeypatch):
    """All of the image is poles, 1024 of a crop: no more than 0.5 x 2048, but more than 0.5 x 2047."""
    source = write_source(tmp_path, {"a": corner(40, 80)})
    statistics, boxes = class_statistics(source, None), []
    monkeypatch.setattr("segda.data.stream.stream.draw_box", lambda *given: (boxes.append(given), draw_box(*given))[1])

    def crops(least: int, retries: int) -> int:
        boxes.clear()
        settings = rare_class(min_pixels=least, retries=retries)
        Stream(source, source, 0, CROP, CROP, settings, statistics).scenes(SOURCE, 0)
        return len(boxes)

    assert (crops(2048, 3), crops(2048, 0), crops(2047, 3)) == (4, 1, 1)


def test_an_image_is_read_once_however_many_crops_are_tried(tmp_path, monkeypatch):
    source = write_source(tmp_path, {"a": corner(20, 20)})
    target = open_data("camvid:train", tmp_path)
    settings = rare_class(crop_ratio=100, retries=7)  # never enough
    pairs = Stream(source, target, 0, LIMITED, CROP, settings, class_statistics(source, None))
    read = []
    plain = file_sets.read_image
    monkeypatch.setattr(file_sets, "read_image", lambda path: (read.append(path), plain(path))[1])
    pairs[0]
    assert len(read) == 2  # source and target


def test_a_share_is_of_the_image_for_images_and_of_the_crop_for_crops():
    share, pixels = rare_class(min_pixels=None, min_share=0.25), rare_class(min_pixels=30)
    assert share.least(400) == 100 and pixels.least(400) == 30
    assert share.least(np.array([4, 8])).tolist() == [1, 2]


def test_images_of_different_size_have_their_own_least_number_of_pixels(tmp_path):
    half = np.full((20, 20), 3, np.uint8)
    half[:11, :10] = 2  # 110 of 400: more than a quarter
    source = write_source(tmp_path, {"large": corner(20, 20), "small": half})  # 400 of 3200: an eighth
    settings = rare_class(min_pixels=None, min_share=0.25)
    pairs = Stream(source, source, 0, CROP, CROP, settings, class_statistics(source, None))
    assert pairs.images_of[2].tolist() == [1]
    pairs = Stream(source, source, 0, CROP, CROP, rare_class(min_pixels=200), class_statistics(source, None))
    assert pairs.images_of[2].tolist() == [0]


@pytest.mark.parametrize("given", [{"min_share": 0.1}, {"min_pixels": None}])
def test_just_one_threshold_is_given(given):
    with pytest.raises(ValidationError, match="give either min_pixels or min_share"):
        rare_class(**given)


# Balanced epochs: test_balanced.py.


def test_a_crop_has_a_class_that_was_drawn_for_it_unless_it_lies_anywhere(tmp_path):
    source = write_source(tmp_path, {"a": corner(2, 2)})  # 40 x 80, of which four pixels are poles
    statistics, pole = class_statistics(source, None), source.space.classes.index("pole")

    def share(by_class: bool) -> float:
        settings = Balanced(images=1, least=1, most=1, place_by_class=by_class)
        pairs = Stream(source, source, 0, CROP, CROP, statistics=statistics, balanced=settings)
        return sum(bool((pairs[n].source.label == pole).any()) for n in range(100)) / 100

    assert 0.35 < share(True) < 0.65 and share(False) < 0.05

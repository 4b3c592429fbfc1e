"""Epochs with so many images of each class, and crops that are placed by one."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from conftest import small_recipe
from segda.data.sets.class_statistics import class_statistics
from segda.data.sets.datasets import open_data
from segda.data.stream.balanced import BalancedEpochs, balanced_epoch, pixel_of_a_class
from segda.data.stream.loading import RESERVED, loader
from segda.data.stream.settings import Augment, Balanced
from segda.data.stream.stream import Stream
from segda.errors import RecipeError
from segda.scene import IGNORE
from segda.training.assembly import assemble

CROP = Augment(resize=None, crop=(16, 16), max_class_share=None, flip=0.5)


def balanced(**given) -> Balanced:
    return Balanced(**{"images": 2, "least": 3, "most": 6, "place_by_class": True} | given)


def some(count: int, often: list[float], seed: int = 0) -> np.ndarray:
    """(count, C) bool: images of which a class is in so large a share."""
    return np.random.default_rng(seed).random((count, len(often))) < np.array(often)


def slowly(has: np.ndarray, settings: Balanced, rng: np.random.Generator) -> set[int]:
    """The rule's words, one image at a time."""
    shuffled = [int(i) for i in rng.permutation(len(has))]
    chosen: list[int] = []

    def missing(c: int) -> bool:
        return sum(has[i, c] for i in chosen) < settings.images and any(has[i, c] for i in shuffled if i not in chosen)

    while len(chosen) < settings.most:
        poor = [(sum(has[i, c] for i in chosen), c) for c in range(has.shape[1]) if missing(c)]
        if not poor and len(chosen) >= min(settings.least, len(has)):
            break
        others = [i for i in shuffled if i not in chosen and (not poor or has[i, min(poor)[1]])]
        if not others:
            break
        chosen.append(others[0])
    return set(chosen)


@pytest.mark.parametrize(
    ("given", "often"),
    [
        ({"images": 5, "least": 4, "most": 50}, [0.9, 0.5, 0.1, 0.0]),
        ({"images": 3, "least": 20, "most": 30}, [0.9, 0.2, 0.1]),
        ({"images": 9, "least": 2, "most": 11}, [0.3, 0.3, 0.1]),
        ({"images": 100, "least": 1, "most": 1000}, [0.2, 0.1]),
        ({"images": 1, "least": 500, "most": 1000}, [0.5]),
    ],
)
def test_an_epoch_is_that_of_the_rules_words(given, often):
    settings = balanced(**given)
    for seed in range(3):
        has = some(40, often, seed)
        ours = balanced_epoch(has, settings, np.random.default_rng(seed))
        assert set(ours.tolist()) == slowly(has, settings, np.random.default_rng(seed))
        assert len(set(ours.tolist())) == len(ours)


def test_each_class_has_its_images_or_all_that_there_are_and_epochs_keep_their_bounds():
    has = some(300, [1.0, 0.4, 0.2, 0.01], 4)
    rare = int(has[:, 3].sum())
    assert 0 < rare < 20
    epoch = balanced_epoch(has, balanced(images=20, least=30, most=100), np.random.default_rng(0))
    assert (has[epoch].sum(0) >= np.minimum(has.sum(0), 20)).all() and has[epoch, 3].sum() == rare
    assert 30 <= len(epoch) < 60
    for least, most, length in ((150, 200, 150), (5, 25, 25), (400, 500, 300)):
        assert len(balanced_epoch(has, balanced(images=20, least=least, most=most), np.random.default_rng(0))) == length


def test_an_epoch_begins_with_any_class():
    has = some(200, [1.0, 0.05])
    first = [
        has[balanced_epoch(has, balanced(images=8, least=50, most=99), np.random.default_rng(k))[0], 1]
        for k in range(40)
    ]
    assert 0 < sum(first) < 20


def test_epochs_of_which_one_would_be_longer_than_another_have_the_first_ones_length():
    has, settings = some(60, [0.3, 0.3, 0.1], 2), balanced(images=5, least=1, most=40)
    free = {len(balanced_epoch(has, settings, np.random.default_rng((0, 5, epoch, 60)))) for epoch in range(8)}
    length = len(balanced_epoch(has, settings, np.random.default_rng((0, 5, 0, 60))))
    assert min(free) < length < max(free)
    epochs = BalancedEpochs(has, settings, (0, 5))
    for epoch in range(8):
        images = {epochs.image(epoch * length + place) for place in range(length)}
        assert len(images) == length and (has[[*images]].sum(0) >= 4).all()


def stream(camvid, seed: int = 3, **given) -> Stream:
    source, target = open_data("camvid:train", camvid), open_data("camvid:train:dusk", camvid)
    statistics = class_statistics(source, None, workers=0)
    return Stream(source, target, seed, CROP, CROP, statistics=statistics, balanced=balanced(**given))


def drawn(stream: Stream, draws: range) -> list[str]:
    return [stream[n].source.names[0] for n in draws]


def test_draws_go_through_epochs_of_one_length_each_of_images_of_its_own(camvid):
    ours = stream(camvid, images=1, least=4, most=5)
    length = len({*drawn(ours, range(4))})
    assert length == 4  # of the seven images
    epochs = [tuple(drawn(ours, range(4 * k, 4 * k + 4))) for k in range(12)]
    assert all(len(set(epoch)) == 4 for epoch in epochs)
    assert len(set(epochs)) > 6 and {name for epoch in epochs for name in epoch} == set(ours.source.names)


def test_a_draw_is_a_function_of_seed_and_number_on_any_process_and_after_any_start(camvid):
    first, second, other = stream(camvid), stream(camvid), stream(camvid, seed=4)
    forward = [first[n].source for n in range(10)]
    for n in reversed(range(10)):
        again = second[n].source
        assert torch.equal(again.image, forward[n].image) and torch.equal(again.label, forward[n].label)
    assert any(not torch.equal(other[n].source.image, forward[n].image) for n in range(10))
    alone = [batch.source.image for (batch,) in loader(first, 2, 0, 4, 0, 3)]
    late = [batch.source.image for (batch,) in loader(second, 2, 2, 4, 1, 3)]
    assert all(torch.equal(*pair) for pair in zip(late, alone[2:], strict=True))
    shared = [
        [batch.source.image for (batch,) in loader(stream(camvid), 1, 0, 4, 0, 3, 2, range(rank, rank + 1))]
        for rank in range(2)
    ]
    assert all(torch.equal(torch.cat(parts), whole) for *parts, whole in zip(*shared, alone, strict=True))


def test_the_target_is_the_same_without(camvid):
    ours, plain = (
        stream(camvid),
        Stream(*(open_data(f"camvid:train{part}", camvid) for part in ("", ":dusk")), 3, CROP, CROP),
    )
    assert all(torch.equal(ours[n].target.image, plain[n].target.image) for n in range(4))


def test_a_draw_in_the_place_of_one_that_cannot_be_read_has_an_image_too(camvid):
    ours = stream(camvid)
    assert len({*drawn(ours, range(RESERVED, RESERVED + 12))}) > 2


def test_a_pixel_is_of_each_class_that_is_there_as_often_and_any_of_its_own():
    label = torch.full((6, 7), 4, dtype=torch.uint8)
    label[2, 3], label[5, 0] = 1, 9
    label[:, 6] = IGNORE
    rng = np.random.default_rng(0)
    pixels = [pixel_of_a_class(label, rng) for _ in range(3000)]
    often = Counter(int(label[pixel]) for pixel in pixels)
    assert often.keys() == {1, 4, 9} and all(abs(often[c] - 1000) < 120 for c in often)
    assert len(set(pixels)) == 6 * 6
    assert pixel_of_a_class(torch.full((3, 3), IGNORE, dtype=torch.uint8), rng) is None


def test_weights_rare_classes_and_bounds_that_contradict_are_refused(camvid):
    source = open_data("camvid:train:day*2+camvid:train:dusk*1", camvid)
    statistics = class_statistics(source, None, workers=0)
    with pytest.raises(RecipeError, match=r"data.source.balanced: chooses among all images alike; leave the weights"):
        Stream(source, source, 0, CROP, CROP, statistics=statistics, balanced=balanced())
    with pytest.raises(ValidationError, match="least: 7 is above most: 6"):
        balanced(least=7)
    both = "data.source.rare_class={temperature: 0.1, min_pixels: 1, crop_ratio: 0, retries: 0}"
    own = "data.source.balanced={images: 1, least: 1, most: 2, place_by_class: false}"
    with pytest.raises(RecipeError, match="rare_class and balanced both say which images are drawn; set one"):
        small_recipe(camvid).override(both, own)
    with pytest.raises(RecipeError, match="data.source.balanced.place_by_class: missing"):
        small_recipe(camvid).override("data.source.balanced={images: 1, least: 1, most: 2}")


def test_a_training_draws_from_epochs_that_its_recipe_tells(camvid):
    recipe = small_recipe(camvid).override(
        "evaluate.data=[]", "data.source.balanced={images: 1, least: 2, most: 2, place_by_class: true}"
    )
    training = assemble(recipe, camvid, None)
    names = [name for (batch,) in training.batches(4, 0) for name in batch.source.names]
    assert len(set(names[:2])) == len(set(names[2:4])) == 2
    ours = Stream(
        training.stream.source, training.stream.target, recipe.seed, recipe.data.source.augment,
        recipe.data.target.augment, statistics=class_statistics(training.stream.source, None, workers=0),
        fill=training.method.fill, balanced=recipe.data.source.balanced,
    )  # fmt: skip
    assert names == drawn(ours, range(8))

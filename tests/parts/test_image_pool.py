from __future__ import annotations

import pytest
import torch

from segda.distributed.shares import ALONE, Share
from segda.errors import DataError
from segda.parts.image_pool import ImagePool, make_room


def images(*greys: float) -> torch.Tensor:
    return torch.tensor(greys).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).clone()


def greys(pixels: torch.Tensor) -> list[float]:
    return pixels[:, 0, 0, 0].tolist()


def test_while_there_is_room_an_image_is_stored_and_given_back():
    pool = ImagePool(4)
    assert greys(pool(images(1, 2), ALONE, "pool")) == [1, 2]
    assert greys(pool(images(3), ALONE, "pool")) == [3]
    assert greys(pool.images) == [1, 2, 3]


def test_then_half_of_the_images_change_places_with_a_stored_one():
    pool, coming = ImagePool(5), iter(range(1, 10_000))
    pool(images(*(next(coming) for _ in range(5))), ALONE, "pool")
    held, changed = set(range(1, 6)), 0
    places = []
    for t in range(600):
        new = float(next(coming))
        before = greys(pool.images)
        (given,) = greys(pool(images(new), Share(step=t), "pool"))
        if given != new:
            assert given in held
            places.append(before.index(given))
            held = held - {given} | {new}
            changed += 1
        assert set(greys(pool.images)) == held
    assert 250 < changed < 350
    assert {places.count(place) > 30 for place in range(5)} == {True}


def test_a_pool_of_none_gives_back_what_comes():
    pool = ImagePool(0)
    for t in range(3):
        assert greys(pool(images(t, t + 1), Share(step=t), "pool")) == [t, t + 1]
    assert pool.images.shape == (0,)


def test_an_image_may_come_back_within_a_step():
    # Of many images in a row, some stored one is a new one of the same step.
    pool = ImagePool(2)
    pool(images(1, 2), ALONE, "pool")
    new = [float(grey) for grey in range(3, 40)]
    given = greys(pool(images(*new), ALONE, "pool"))
    assert any(grey in new and grey != own for grey, own in zip(given, new, strict=True))


def test_what_is_given_back_is_a_copy():
    pool = ImagePool(1)
    pool(images(1), ALONE, "pool")
    kept = [pool(images(float(t)), Share(step=t), "pool") for t in range(2, 30)]
    before = [greys(one) for one in kept]
    pool.images.zero_()
    assert [greys(one) for one in kept] == before


def test_draws_belong_to_the_step_and_the_purpose():
    def given(step: int, purpose: str) -> list[float]:
        pool = ImagePool(8)
        pool(images(*range(8)), ALONE, "pool")
        return greys(pool(images(*range(8, 24)), Share(step=step), purpose))

    assert given(3, "pool") == given(3, "pool")
    assert given(3, "pool") != given(4, "pool")
    assert given(3, "pool") != given(3, "other")


def test_room_is_made_for_the_pool_of_a_checkpoint_and_for_nothing_else():
    method = torch.nn.ModuleDict({"pool": ImagePool(3)})
    for odd in (images(1, 2, 3, 4), torch.zeros(3, 2), "images", None, torch.zeros(1).expand(2, 3, 9999, 9999)):
        make_room(method, {"pool.images": odd})
        assert method["pool"].images.shape == (0,)
    make_room(method, {"pool.images": images(1, 2)})
    method.load_state_dict({"pool.images": images(1, 2)})
    assert greys(method["pool"].images) == [1, 2]


def test_images_of_two_sizes_are_refused():
    pool = ImagePool(3)
    pool(images(1), ALONE, "pool")
    with pytest.raises(DataError, match=r"images of 2 x 2 and of 2 x 4 pixels .* set data.source.augment.crop"):
        pool(torch.zeros(1, 3, 2, 4), ALONE, "pool")

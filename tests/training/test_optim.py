"""Optimisers: ADVENT's repeated updates against torch's own SGD on a list with duplicates; groups, rates, settings."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from segda.errors import RecipeError
from segda.recipes.optimisers import SGD, Adam, AdamW
from segda.recipes.recipe import parse_recipe
from segda.training.optim import RepeatedSGD, lr_at, optimiser, set_lr

SETTINGS = {"lr": 0.1, "head_lr_factor": 10, "momentum": 0.9, "weight_decay": 0.01, "power": 0.9}
TIMES = {"stem": 1, "blocks": 3, "shortcuts": 4, "head": 1}


def weights() -> dict[str, list[torch.nn.Parameter]]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3, 2), (4,))]
        for name in TIMES
    }


def walk(groups: dict[str, list[torch.nn.Parameter]], ours: torch.optim.Optimizer, steps: range) -> None:
    for t in steps:
        generator = torch.Generator().manual_seed(t)
        for group in groups.values():
            for weight in group:
                weight.grad = torch.randn(weight.shape, generator=generator)
        set_lr(ours, t, 10, SGD(name="sgd", backbone_updates="once", **SETTINGS))
        ours.step()


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate parameters")
def test_repeated_updates_equal_torchs_sgd_on_a_list_with_duplicates():
    ours, theirs = weights(), weights()
    walk(ours, optimiser(ours, SGD(name="sgd", backbone_updates="authors", **SETTINGS)), range(5))
    rows = [
        # The whole list once more, as the authors' generator gives a stage's, then a block's, then a layer's tensors.
        {"params": group * TIMES[name], "base_lr": 1.0 if name == "head" else 0.1}
        for name, group in theirs.items()
    ]
    walk(theirs, torch.optim.SGD(rows, lr=0.1, momentum=0.9, weight_decay=0.01, foreach=False), range(5))
    for name in TIMES:
        for one, other in zip(ours[name], theirs[name], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_updates_once_equal_repeated_updates_with_one_repetition():
    ours, theirs = weights(), weights()
    walk(ours, optimiser(ours, SGD(name="sgd", backbone_updates="once", **SETTINGS)), range(5))
    rows = [{"params": group, "base_lr": 1.0 if name == "head" else 0.1} for name, group in theirs.items()]
    walk(theirs, RepeatedSGD(rows, lr=0.1, momentum=0.9, weight_decay=0.01), range(5))
    for name in TIMES:
        for one, other in zip(ours[name], theirs[name], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_repeated_updates_go_on_from_a_saved_state():
    whole, halves = weights(), weights()
    settings = SGD(name="sgd", backbone_updates="authors", **SETTINGS)
    walk(whole, optimiser(whole, settings), range(4))
    first = optimiser(halves, settings)
    walk(halves, first, range(2))
    second = optimiser(halves, settings)
    second.load_state_dict(first.state_dict())
    walk(halves, second, range(2, 4))
    for name in TIMES:
        assert all(torch.equal(one, other) for one, other in zip(whole[name], halves[name], strict=True))


@pytest.mark.parametrize("late", [0, 1])
def test_a_tensor_may_have_its_first_gradient_later_than_its_neighbour(late):
    def run(kind, **more):
        pair = [torch.nn.Parameter(torch.tensor([1.0, -2.0])), torch.nn.Parameter(torch.tensor([3.0, 0.5]))]
        ours = kind([{"params": pair}], lr=0.1, momentum=0.9, weight_decay=0.01, **more)
        for t in range(4):
            for number, weight in enumerate(pair):
                weight.grad = None if number == late and t < 2 else torch.full((2,), 0.3 * (t + 1))
            ours.step()
        return pair

    for one, other in zip(run(RepeatedSGD), run(torch.optim.SGD, foreach=False), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_a_tensor_without_gradient_is_left_alone():
    groups = weights()
    ours = optimiser(groups, SGD(name="sgd", backbone_updates="authors", **SETTINGS))
    before = groups["blocks"][0].detach().clone()
    ours.step()
    assert torch.equal(groups["blocks"][0], before)


def test_authors_updates_are_refused_for_a_network_whose_tensors_were_never_listed_twice():
    groups = {"encoder": weights()["stem"], "head": weights()["head"]}
    with pytest.raises(RecipeError, match=r"optim.backbone_updates: authors has no effect.*set it to once"):
        optimiser(groups, SGD(name="sgd", backbone_updates="authors", **SETTINGS))


def test_adam_has_one_rate_and_no_weight_decay():
    ours = optimiser({"main": weights()["head"]}, Adam(name="adam", lr=1e-4, betas=(0.9, 0.99), power=0.9))
    assert [(row["base_lr"], row["betas"], row["weight_decay"]) for row in ours.param_groups] == [
        (1e-4, (0.9, 0.99), 0)
    ]


def test_adamw_spares_the_norms_and_hurries_the_head():
    settings = AdamW(name="adamw", lr=1e-3, head_lr_factor=10, betas=(0.9, 0.999), weight_decay=0.01, power=1)
    groups = {"encoder": weights()["stem"], "norm": weights()["blocks"], "head": weights()["head"]}
    rows = {row["name"]: (row["base_lr"], row["weight_decay"]) for row in optimiser(groups, settings).param_groups}
    assert rows == {"encoder": (1e-3, 0.01), "norm": (1e-3, 0.0), "head": (1e-2, 0.01)}


def test_a_rate_may_fall_more_slowly_than_the_run_lasts():
    settings = SGD(name="sgd", backbone_updates="once", decay_steps=250_000, **SETTINGS)
    assert lr_at(120_000, 120_000, settings, 0.5) == pytest.approx(0.5 * (1 - 120 / 250) ** 0.9)
    assert lr_at(120_000, 120_000, SGD(name="sgd", backbone_updates="once", **SETTINGS), 0.5) == 0


def test_all_rates_go_to_the_lowest_one_from_above_and_from_below():
    settings = SGD(name="sgd", backbone_updates="once", min_lr=0.4, **(SETTINGS | {"power": 1}))
    groups = weights()
    ours = optimiser(groups, settings)
    rates = []
    for t in (0, 2, 8):
        set_lr(ours, t, 8, settings)
        rates.append({group["name"]: group["lr"] for group in ours.param_groups})
    # From 0.1 and, for the head, 1.0: a quarter of the way is 0.3 x 1/4 up and 0.6 x 1/4 down.
    assert [row["blocks"] for row in rates] == pytest.approx([0.1, 0.175, 0.4])
    assert [row["head"] for row in rates] == pytest.approx([1.0, 0.85, 0.4])


def test_warm_up_scales_the_lowest_rate_too():
    given = {"warmup": 4, "warmup_ratio": 0.2, "min_lr": 0.5, "power": 1}
    settings = Adam(name="adam", lr=1, betas=(0, 0), **given)
    # Without warm-up 1 - t / 8 x 0.5; of it 0.2, then 0.6 at half of the warm-up, then all.
    assert [lr_at(t, 8, settings, 1) for t in (0, 2, 4, 8)] == pytest.approx([0.2, 0.6 * 0.875, 0.75, 0.5])


def test_a_full_warm_up_reaches_the_rate_and_then_steps_down_to_the_fall():
    settings = Adam(name="adam", lr=1, betas=(0, 0), warmup=4, warmup_ratio=0.1, warmup_full=True, power=1)
    assert [lr_at(t, 8, settings, 2) for t in (0, 1, 3, 4, 8)] == pytest.approx([0.2, 0.8, 2, 1, 0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optim.warmup": 1, "optim.warmup_full": True}, r"optim: warmup_full needs a warmup of two steps or more"),
        ({"optim.name": "sgdd"}, r"optim: .*sgdd"),
        ({"optim.decay_steps": 3}, r"optim.decay_steps 3 is before the last of 4 steps"),
        ({"optim.warmup_ratio": None}, r"optim: warmup needs warmup_ratio"),
        ({"optim.momentum": 0.9}, r"optim: unknown key 'momentum'"),
        ({"players": {"discriminators": {"name": "adam", "lr": 1, "betas": [0, 0], "power": 1}}}, r"no such player"),
        (
            {"players": {"discriminators": {"name": "adam", "lr": 1}}},
            r"players\.discriminators\.power, players\.discriminators\.betas: missing",
        ),
        (
            {"players": {"discriminators": {"name": "adam", "lr": -1, "betas": [0, 0], "power": 1}}},
            r"players\.discriminators\.lr: Input should be greater than 0",
        ),
        (
            {"method": {"name": "advent", "adversarial_weight": {"main": 1}, "width": 2}},
            r"players.discriminators: missing; method advent needs an optimiser",
        ),
    ],
)
def test_wrong_settings_of_optimisers_are_explained(recipe, changes, message):
    tree = recipe.model_dump(mode="json", exclude_unset=True)
    for key, value in changes.items():
        *parents, last = key.split(".")
        inner = tree
        for parent in parents:
            inner = inner[parent]
        inner[last] = value
    with pytest.raises(RecipeError, match=message):
        parse_recipe(tree, "small recipe")


def test_a_rate_that_is_held_falls_from_there_on():
    settings = Adam(name="adam", lr=1.0, betas=(0.5, 0.999), power=1, hold=4)
    assert [lr_at(t, 8, settings, 1.0) for t in range(9)] == [1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0]
    assert [lr_at(t, 3, settings, 1.0) for t in range(3)] == [1, 1, 1], "a short run ends before"
    earlier = settings.model_copy(update={"decay_steps": 6})
    assert [lr_at(t, 6, earlier, 1.0) for t in range(6)] == [1, 1, 1, 1, 1, 0.5]


def test_in_stairs_each_step_has_the_rate_of_its_stairs_end():
    settings = Adam(name="adam", lr=1.0, betas=(0.5, 0.999), power=1, stairs=2)
    assert [lr_at(t, 8, settings, 1.0) for t in range(8)] == [0.75, 0.75, 0.5, 0.5, 0.25, 0.25, 0, 0]
    assert [lr_at(t, 5, settings, 1.0) for t in range(5)] == pytest.approx([0.6, 0.6, 0.2, 0.2, 0])


def test_a_rate_cannot_be_held_beyond_where_it_has_fallen():
    with pytest.raises(ValidationError, match="hold 9 is not before decay_steps 9"):
        Adam(name="adam", lr=1.0, betas=(0.5, 0.999), power=1, hold=9, decay_steps=9)

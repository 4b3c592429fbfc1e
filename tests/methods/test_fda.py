"""FDA: where the look comes from, when the entropy counts, what is refused; and the swap of any other method."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from conftest import METHOD_SETTINGS, small_recipe
from resuming import at, same
from segda import run as runs
from segda.cli.main import main
from segda.commands.pseudo_label import pseudo_label
from segda.commands.train import train
from segda.errors import RecipeError
from segda.methods import METHODS
from segda.methods.fda import FDA
from segda.networks import DeepLabV2
from segda.networks.network import Head, Output
from segda.parts.fourier import swap
from segda.recipes.build import build
from segda.recipes.recipe import Recipe
from segda.scene import Batch, Scene
from segda.training import assembly, max_batch

RULE = {"name": "quantile", "share": 0.66, "cap": 0.9, "images": "all", "softmax": "after"}


def fda(**settings) -> FDA:
    student = DeepLabV2(("road", "car", "sky"), encoder="small", weights="scratch", multi_level=False)
    return build(METHODS, {"name": "fda", **METHOD_SETTINGS["fda"], **settings}, "method", student=student).train()


def picture(seed: int) -> Tensor:
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(seed))


def seen_by(method: FDA, batch: Batch, t: int = 0) -> tuple[list[Tensor], dict[str, Tensor]]:
    """The images that the student saw, and the terms."""
    seen: list[Tensor] = []
    method.student.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    terms: dict[str, Tensor] = {}
    for event in method.step(batch, t):
        terms |= event
    return seen, terms


@pytest.fixture
def rounds(camvid, tmp_path) -> Recipe:
    """A later round, with labels of two networks of the first."""
    first = small_recipe(camvid, "fda").override("steps=1", "evaluate.data=[]")
    made = [tmp_path / "one", tmp_path / "other"]
    for run, beta in zip(made, (0.05, 0.3), strict=True):
        train(first.override(f"method.beta={beta}"), run)
    pseudo_label(made, first.data.target.set, RULE, tmp_path / "labels", root=camvid, precision="32")
    settings = ("steps=4", "method.entropy_after=null", f"data.target.labels={tmp_path / 'labels'}")
    return first.override(*settings)


# Where the look comes from


def test_without_pseudo_labels_the_target_is_the_style_and_is_seen_as_it_is():
    label = torch.zeros(2, 32, 48, dtype=torch.int64)
    (source, target), terms = seen_by(fda(beta=0.2), Batch(Scene(picture(0), label), Scene(picture(1))))
    assert torch.equal(source, swap(picture(0), picture(1), 0.2)) and torch.equal(target, picture(1))
    assert "pseudo" not in terms and {"source", "robust_entropy/main"} <= set(terms)


def test_with_pseudo_labels_another_target_is_the_style():
    label = torch.zeros(2, 32, 48, dtype=torch.int64)
    batch = Batch(Scene(picture(0), label), Scene(picture(1), label + 1), style=Scene(picture(2)))
    (source, target), terms = seen_by(fda(beta=0.2), batch)
    assert torch.equal(source, swap(picture(0), picture(2), 0.2)) and torch.equal(target, picture(1))
    assert terms["pseudo"] > 0


def test_a_run_draws_styles_of_its_own_where_there_are_labels(rounds):
    with_labels = assembly.assemble(rounds, rounds.data.root, None)
    without = assembly.assemble(rounds.override("data.target.labels=null"), rounds.data.root, None)
    for (ours,), (theirs,) in zip(with_labels.batches(4, 0), without.batches(4, 0), strict=True):
        assert theirs.style is None and theirs.target.label is None
        assert ours.style.label is None and ours.target.label is not None
        assert ours.style.image.shape == ours.target.image.shape
        assert not torch.equal(ours.style.image, ours.target.image)
        # The other domains are what they are without styles.
        assert torch.equal(ours.source.image, theirs.source.image) and torch.equal(
            ours.target.image, theirs.target.image
        )
    assert {name.partition("_")[0] for name in ours.style.names} == {"0001TP"}


# When the entropy counts


@pytest.mark.parametrize(("after", "counting"), [(0, [0, 1, 1]), (1, [0, 0, 1]), (None, [1, 1, 1])])
def test_the_entropy_counts_after_its_step_and_the_target_is_seen_before(after, counting):
    label = torch.zeros(2, 32, 48, dtype=torch.int64)
    batch = Batch(Scene(picture(0), label), Scene(picture(1)))
    terms = [seen_by(fda(entropy_after=after), batch, t)[1] for t in range(3)]
    assert [int(each["robust_entropy/main"] > 0) for each in terms] == counting


def test_an_entropy_of_cells_is_that_before_upsampling():
    method = fda(entropy_after=None)
    batch = Batch(Scene(picture(0), torch.zeros(2, 32, 48, dtype=torch.int64)), Scene(picture(1)))
    heads = []
    method.student.register_forward_hook(lambda *given: heads.append(given[2].heads["main"]))
    terms = seen_by(method, batch)[1]
    cells = heads[1].cells.double()
    assert cells.shape == (2, 3, 5, 7)
    prob = cells.softmax(1)
    relative = -(prob * prob.log()).sum(1) / torch.tensor(3.0, dtype=torch.float64).log()
    expected = 0.1 * ((relative**2 + 1e-8) ** 2).mean()
    assert terms["robust_entropy/main"].item() == pytest.approx(expected.item(), rel=1e-5)


# Runs


def test_a_later_round_that_was_stopped_ends_as_if_it_had_not_been(rounds, tmp_path):
    recipe = rounds.override("save_every=2", "data.workers=1")
    train(recipe, tmp_path / "whole")
    with pytest.raises(ZeroDivisionError), at(3, lambda: 1 / 0):
        train(recipe, tmp_path / "stopped")
    train(recipe, tmp_path / "stopped", resume=True)
    assert same(tmp_path / "stopped", tmp_path / "whole")
    assert all(line["pseudo"] > 0 for line in runs.read_log(tmp_path / "whole") if "pseudo" in line)


def test_a_batch_that_is_measured_has_styles(rounds):
    noise = max_batch.Trial(rounds).noise(2)
    assert noise.style.image.shape == noise.target.image.shape and noise.style.label is None
    assert max_batch.Trial(rounds.override("data.target.labels=null")).noise(2).style is None


# The swap of any other method


def test_a_source_that_takes_the_targets_look_is_swapped_before_the_method_sees_it(camvid):
    recipe = small_recipe(camvid, "source_only", photometric=None)
    recipe = recipe.override("data.source.augment.swap=0.2", "evaluate.data=[]")
    training = assembly.assemble(recipe, recipe.data.root, None)
    seen: list[Tensor] = []
    training.method.student.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    (batch,) = next(training.batches(1, 0))
    training.step([batch])
    ours = batch.to("cpu")
    assert torch.equal(seen[0], swap(ours.source.image, ours.target.image, 0.2))
    assert not torch.equal(seen[0], ours.source.image)


# What is refused

OTHER_CROP = "data.target.augment.crop=[32, 40]"


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("fda", ["method.beta=-0.1"], "method.beta: -0.1 is not between 0"),
        ("fda", ["method.beta=0.6"], "method.beta: 0.6 is not between 0"),
        ("fda", ["method.eta=0"], "method.eta: 0.0 is not above 0"),
        ("fda", ["method.entropy_weight={aux: 1}"], "method.entropy_weight: is for aux, .* heads are main"),
        ("fda", ["data.source.augment.swap=0.1"], "augment.swap: method fda swaps already, .*; remove one of the two"),
        ("fda", [OTHER_CROP], r"crop: \[32, 40\] is not \[32, 32\], that of the source, .*; give both one size"),
        ("source_only", ["data.source.augment.swap=0.1", OTHER_CROP], r"\[32, 40\] is not \[32, 32\]"),
        ("fda", ["data.source.augment.bring_to=[24, 24]"], r"crop: \[32, 32\] is not \[24, 24\], that of the source"),
        ("fda", ["data.target.augment.bring_to=[24, 24]"], r"bring_to: \[24, 24\] is not \[32, 32\], that of the"),
        ("source_only", ["data.source.augment.swap=0.6"], r"augment.swap: .*less than or equal to 0.5 \(got 0.6\)"),
        ("source_only", ["data.target.augment.swap=0.1"], "target's look; set data.source.augment.swap"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_one_line(camvid, method, changes, message):
    with pytest.raises(RecipeError, match=message) as error:
        assembly.build_method(recipe := small_recipe(camvid, method).override(*changes), assembly.space_of(recipe))
    assert "\n" not in str(error.value)


def test_crops_that_are_brought_to_one_size_may_differ(camvid):
    small_recipe(camvid, "fda").override(OTHER_CROP, "data.target.augment.bring_to=[32, 32]")


def test_images_of_two_sizes_end_the_run_at_its_first_step_with_2(camvid, tmp_path, capsys):
    recipe = small_recipe(camvid, "fda").override("data.target.augment.crop=null", "device=cpu")
    (tmp_path / "mine.yaml").write_text(recipe.to_yaml())
    assert main(["train", str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "run")]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("segda: source images")]
    assert "are 32x32 and the target's, whose look they take, 64x48" in line


def test_a_network_that_does_not_tell_its_cells_is_refused(monkeypatch):
    method = fda()
    forward = method.student.forward

    def untold(image: Tensor) -> Output:
        return Output({"main": Head(forward(image).logits)})

    monkeypatch.setattr(method.student, "forward", untold)
    batch = Batch(Scene(picture(0), torch.zeros(2, 32, 48, dtype=torch.int64)), Scene(picture(1)))
    with pytest.raises(RecipeError, match="network: does not tell .* set Head.cells in its forward"):
        list(method.step(batch, 0))

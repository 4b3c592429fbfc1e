"""A recipe against the facts that its method declares: what must be there, may be, and has no effect."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import small_recipe
from segda.errors import RecipeError
from segda.methods.source_only import SourceOnly
from segda.recipes.recipe import Recipe
from segda.training.assembly import target_labels

LABELS, REFERENCE = "data.target.labels=labels", "data.reference.set=camvid:train:day"


@pytest.mark.parametrize("need", ["never", "may", "must"])
@pytest.mark.parametrize("fact", ["target_labels", "reference"])
@pytest.mark.parametrize("given", [False, True])
def test_what_a_method_takes_is_given_by_its_recipe(camvid, monkeypatch, fact, need, given):
    setting = {"target_labels": LABELS, "reference": REFERENCE}[fact]
    key = {"target_labels": "data.target.labels", "reference": "data.reference"}[fact]
    recipe = small_recipe(camvid)
    monkeypatch.setattr(SourceOnly, fact, need)

    def made() -> Recipe:
        changed = recipe.override(setting) if given else recipe.override("seed=0")
        if fact == "target_labels" and not given:
            # Stages make pseudo-labels after their recipe was read: they are asked for when the training begins.
            assert target_labels(changed, None, None) is None
        return changed

    wrong = {("never", True): "has no effect with method source_only; remove it", ("must", False): "method source_only"}
    if (need, given) in wrong:
        with pytest.raises(RecipeError, match=rf"{key}: .*{wrong[need, given]}") as caught:
            made()
        assert "\n" not in str(caught.value)
    else:
        assert (made().data.reference is not None) == (fact == "reference" and given)


def test_a_module_that_declares_no_facts_is_no_method(camvid: Path):
    with pytest.raises(RecipeError, match=r"method\.name: 'torch\.nn:Linear' is no method; derive it from segda"):
        small_recipe(camvid).override("method={name: 'torch.nn:Linear', in_features: 1, out_features: 1}")

"""DANNet: the settings that it refuses; what it computes is in tests/conformance/dannet.py."""

from __future__ import annotations

import pytest

from conftest import small_recipe
from segda.errors import RecipeError
from segda.training import assembly


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("method.target_size=[0, 60]", r"method.target_size.*: Input should be greater than 0 \(got 0\)"),
        ("method.target_size=[60, -1]", r"method.target_size.*: Input should be greater than 0 \(got -1\)"),
        ("method.spread=-0.5", "method.spread: -0.5 is below 0, and rare classes would weigh less than frequent ones"),
        (
            "method.spread=9",
            "method.spread: with 9 the most frequent class would weigh -.*, not above 0; give less than",
        ),
    ],
)
def test_settings_that_cannot_be_are_one_line(camvid, change, message):
    with pytest.raises(RecipeError, match=message) as error:
        assembly.build_method(recipe := small_recipe(camvid, "dannet").override(change), assembly.space_of(recipe))
    assert "\n" not in str(error.value)

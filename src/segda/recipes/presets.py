"""Lengths and networks to choose from for somebody's own images: quick, standard, best.

ours: on CamVid (2 x 192 x 256 pixels of each domain a step) a step of lite0 takes 0.2 s of one core of an AMD EPYC;
docs/results/camvid.md has what 400 and 1,200 steps reach, docs/results/ease.md longer runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segda.errors import RecipeError
from segda.ground.choices import PresetName

if TYPE_CHECKING:
    from segda.recipes.recipe import Recipe

LATE = 5 / 8
"""Of the steps, those before self-training begins, as in the shipped recipes of EASE."""


@dataclass(frozen=True)
class Preset:
    steps: int
    encoder: str
    reason: str


PRESETS: dict[PresetName, Preset] = {
    "quick": Preset(400, "lite0", "a first look, two to four minutes on two processor cores"),
    "standard": Preset(1200, "lite0", "what the gains on CamVid and streets were measured with"),
    "best": Preset(6000, "lite2", "the largest of the ImageNet encoders that pip installs, and five times the steps"),
}
"""ours"""


def keys_of(name: PresetName, method: str) -> dict[str, Any]:
    """Dotted key -> value that a preset gives a recipe of this method."""
    preset = PRESETS[name]
    keys: dict[str, Any] = {"steps": preset.steps, "network.encoder": preset.encoder}
    return keys | ({"method.begin": int(preset.steps * LATE)} if method != "source_only" else {})


def preset(recipe: Recipe, name: PresetName) -> Recipe:
    """A recipe with a preset's length and network. RecipeError for one that no preset is for."""
    encoders = {one.encoder for one in PRESETS.values()}
    if recipe.network.get("encoder") not in encoders:
        raise RecipeError(
            f"--preset {name}: is for recipes of the encoders {', '.join(sorted(encoders))}, as `segda init` writes; "
            f"the encoder here is {recipe.network.get('encoder')}; use --set steps=N"
        )
    return recipe.override(*(f"{key}={value}" for key, value in keys_of(name, str(recipe.method["name"])).items()))

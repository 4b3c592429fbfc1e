"""What a first look saw, in words and as a YAML file of data/sets/folders.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segda.data.own.layout import Layout
from segda.data.own.naming import Named, shown
from segda.data.own.values import Values
from segda.ground.safe_yaml import yaml_line

SHOWN = 8
"""Values of labels that are named."""


def seen(layout: Layout, values: Values, size: tuple[int, int]) -> dict[str, str]:
    """What -> what was seen of it. size: (height, width) of the middle image."""
    height, width = size
    lone = f"; {layout.lone} labels have no image" if layout.lone else ""
    places = layout.labels or "named as their images"
    most = values.pixels.most_common(SHOWN)
    more = f" and {len(values.pixels) - SHOWN} more" if len(values.pixels) > SHOWN else ""
    if values.kind in ("masks", "shapes"):
        of = ", ".join(str(name) for name, _ in most)
    else:
        of = ", ".join(f"{shown(value)} {values.share(value):.1%}" for value, _ in most)
    what = {"ids": "ids", "colours": "colours", "masks": "a mask for each class", "shapes": "shapes"}[values.kind]
    return {
        "source": f"{len(layout.pairs)} images, the middle one {width}x{height}",
        "labels": f"{layout.labelled} of the images have one, {places}{lone}",
        "values": f"{what}: {of}{more} (in {values.looked_at} files)",
    }


def data_yaml(splits: Mapping[str, Any], values: Values, named: Named) -> str:
    """The text of data.yaml, with what was assumed at its end."""
    lines = ["# Written by `segda init`. docs/DATA.md, Folders of your own, says what else can stand here.", "splits:"]
    lines += [f"  {name}: {yaml_line(split)}" for name, split in splits.items()]
    lines += ["classes:", *(f"  {yaml_line(name)}: {yaml_line(one)}" for name, one in named.classes.items())]
    if named.ignored:
        lines.append(f"ignored: {yaml_line(named.ignored)}")
    if values.kind == "colours":
        lines.append("labels_are: colours")
    return "\n".join([*lines, *(f"# assumed: {line}" for line in named.assumed)]) + "\n"

"""What checkpoints of OpenMMLab's code say of the classes, beside the tensors.

{"meta": {"CLASSES": ("road", ...), "PALETTE": [[128, 64, 128], ...]}, ...}                  mmcv, mmsegmentation 0.x
{"meta": {"dataset_meta": {"classes": ("road", ...), "palette": ...}}, ...}                  mmengine, 1.x
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segda.errors import WeightsError

META = "meta"


def stated_in(held: Any) -> dict[str, Any]:
    """Dotted key -> value of what a file says of its network's classes."""
    meta = held.get(META) if isinstance(held, Mapping) else None
    inner = meta.get("dataset_meta") if isinstance(meta, Mapping) else None
    told, where = (inner, f"{META}.dataset_meta") if isinstance(inner, Mapping) else (meta, META)
    if not isinstance(told, Mapping):
        return {}
    return {
        f"{where}.{key}": value
        for key, value in told.items()
        if str(key).lower() in ("classes", "palette") and value is not None
    }


def class_names(stated: Mapping[str, Any], file: Path) -> tuple[str, tuple[str, ...]] | None:
    """(the key, the classes in the network's order); None where the file does not say. WeightsError for no names."""
    key = next((key for key in stated if key.lower().endswith("classes")), None)
    if key is None:
        return None
    names = stated[key]
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name.isprintable() for name in names):
        raise WeightsError(
            f"{file}: {key}: is no list of names; --leave-out {META} takes the classes to be in the recipe's order"
        )
    return key, tuple(names)


def colours(stated: Mapping[str, Any], names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Name of a class -> its colour in the file's pictures; none where the file does not say a colour for each."""
    told = next((value for key, value in stated.items() if key.lower().endswith("palette")), ())
    if not isinstance(told, list | tuple) or not all(isinstance(one, list | tuple) and len(one) == 3 for one in told):
        return {}
    return dict(zip(names, map(tuple, told), strict=True)) if len(told) == len(names) else {}

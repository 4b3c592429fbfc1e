"""What stands beside the weights in a folder of Hugging Face's kind: a list of their parts, the classes, how images
are normalised.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from segda.errors import WeightsError
from segda.ground.safe_yaml import read_json
from segda.networks.encoders.table import IMAGENET, Colour, Normalisation

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"

INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
"""The file in place of the weights where those are in several files."""

SINGLE = ("model.safetensors", "pytorch_model.bin")


def files_named(index: Path) -> list[str]:
    """The names of the files that an index names, each once. WeightsError for one that cannot be beside it."""
    told = _mapping(index, read(index).get("weight_map"), "weight_map")
    names = list(dict.fromkeys(told.values()))
    for name in names:
        if not isinstance(name, str) or name != Path(name).name or not name.endswith((".safetensors", ".bin")):
            raise WeightsError(f"{index}: weight_map: {str(name)!r:.80} is no file of weights; fetch or copy it again")
    return names


def parts_of(index: Path) -> list[Path]:
    """The files of weights that an index names. WeightsError for one that is not there."""
    names = files_named(index)
    if gone := [name for name in names if not (index.parent / name).is_file()]:
        raise WeightsError(
            f"{index}: {len(gone)} of {len(names)} parts are missing, first {gone[0]}; fetch or copy all"
        )
    return [index.parent / name for name in names]


def names_in(index: Path) -> set[str]:
    """The tensors that an index names."""
    return {str(name) for name in _mapping(index, read(index).get("weight_map"), "weight_map")}


def class_names(file: Path) -> tuple[str, ...] | None:
    """What the folder of a file of weights calls the network's classes, in their order; None where it does not say."""
    config = file.parent / CONFIG
    if file.name not in (*SINGLE, *INDICES) or not config.is_file():
        return None
    told = read(config).get("id2label")
    if told is None:
        return None
    names = {str(id): name for id, name in _mapping(config, told, "id2label").items()}
    order = [names.get(str(place)) for place in range(len(names))]
    if not all(isinstance(name, str) and name.isprintable() for name in order):
        raise WeightsError(f"{config}: id2label: must name the ids 0 to {len(names) - 1}; correct it")
    if order == [f"LABEL_{place}" for place in range(len(names))]:  # nobody has named them
        return None
    return tuple(map(str, order))


def normalisation(file: Path) -> Normalisation | None:
    """How the folder of a file of weights says that images are normalised, (x - mean) / deviation of RGB x in [0, 1];
    None where it does not say.

    Theirs is (factor * v - image_mean) / image_std of v in 0..255, the factor 1/255 unless it is another.
    """
    path = file.parent / PREPROCESSOR
    if file.name not in (*SINGLE, *INDICES) or not path.is_file():
        return None
    told = read(path)
    factor = told.get("rescale_factor", 1 / 255) if told.get("do_rescale", True) else 1.0
    normalised = told.get("do_normalize", True)
    mean = told.get("image_mean", IMAGENET.mean) if normalised else (0.0,) * 3
    deviation = told.get("image_std", IMAGENET.deviation) if normalised else (1.0,) * 3
    for key, values in (("rescale_factor", [factor]), ("image_mean", mean), ("image_std", deviation)):
        fits = isinstance(values, list | tuple) and len(values) == (1 if key == "rescale_factor" else 3)
        if not fits or not all(type(value) in (int, float) and math.isfinite(value) for value in values):
            raise WeightsError(f"{path}: {key}: {str(values)!r:.80} is not what it can be; correct it")
    if factor <= 0 or min(deviation) <= 0:
        raise WeightsError(f"{path}: image_std and rescale_factor must be above 0; correct them")

    def scaled(values: Any) -> Colour:
        red, green, blue = (value if math.isclose(factor * 255, 1) else value / (255 * factor) for value in values)
        return red, green, blue

    return Normalisation(scaled(mean), scaled(deviation))


def alike(one: Normalisation, other: Normalisation) -> bool:
    """Whether two normalisations are the same but for how many digits were written."""
    same = np.allclose(one.mean, other.mean, atol=1e-3) and np.allclose(one.deviation, other.deviation, atol=1e-3)
    return bool(same) and one.order == other.order


def refuse_other_images(file: Path, wanted: Normalisation) -> None:
    """WeightsError where an encoder's folder says that it saw images normalised otherwise than here, and otherwise than
    those of ImageNet, which every encoder may start from.
    """
    told = normalisation(file)
    if told is not None and not alike(told, wanted) and not alike(told, IMAGENET):
        raise WeightsError(
            f"{file.parent / PREPROCESSOR}: image_mean and image_std are not ImageNet's, so that the encoder would see "
            "other images than it learnt from; take weights with those, or convert the whole network and set start"
        )


def read(path: Path) -> Mapping[str, Any]:
    """A JSON file that holds a mapping."""
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read ({error}); fetch or copy it again") from error
    return _mapping(path, found, "the file")


def _mapping(path: Path, found: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(found, Mapping) or not found:
        raise WeightsError(f"{path}: {what}: is no mapping; fetch or copy it again")
    return found

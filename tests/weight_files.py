"""Weights as files of other people: their names, and the formats they come in."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def write(file: Path, tensors) -> Path:
    """In the format of the file's ending; any content where that is not safetensors."""
    if file.suffix == ".safetensors":
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, file)
    else:
        torch.save(tensors, file)
    return file

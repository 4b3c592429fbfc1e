"""Files of weights, .safetensors: the same tensors give the same bytes, and damage shows when they are read.

The metadata have two digests: of the tensors, and of the metadata themselves, for those who read no more than these.
A file of other code, or of an earlier version, has none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from segda.errors import WeightsError
from segda.ground.atomic import atomic_write
from segda.ground.paths import regular

TENSORS, FACTS = "tensors_sha256", "facts_sha256"
"""The names of the digests among the metadata."""

NUMBERS = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
}
"""The types of numbers that are read: of the smaller ones, torch cannot say whether they are finite."""


def save_tensors(path: Path, facts: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    """The tensors and, as metadata, what is to be known of them. The same ones give the same file, byte for byte."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    known = {"format": "pt", **facts, TENSORS: digest(tensors.items())}
    content = to_bytes(tensors, metadata={**known, FACTS: _digest_of_facts(known)})
    # The library writes the metadata in an order that changes from process to process.
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of eight
    with atomic_write(path, lasting=True) as partial, partial.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(memoryview(content)[end:])


def read_facts(path: Path) -> dict[str, str]:
    """The metadata. OSError when the file cannot be read, ValueError when it or they are not as they were written."""
    try:
        with safe_open(regular(path), "pt") as file:
            return _whole_facts(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], bool]:
    """The tensors, and whether there was a digest that says they are those that were written. Errors as of read_facts,
    WeightsError for a tensor that is no plain array of numbers.
    """
    try:
        # Opened once: meanwhile a training may put another file in its place.
        with safe_open(regular(path), "pt") as file:
            expected = _whole_facts(file.metadata() or {}).get(TENSORS)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    refuse_odd(tensors, path)
    if expected is not None and digest(tensors.items()) != expected:
        raise ValueError("damaged: its tensors are not those that were saved, by their SHA-256")
    return tensors, expected is not None


def _whole_facts(facts: Mapping[str, str]) -> dict[str, str]:
    """The metadata, or ValueError where they have been changed."""
    others = {key: value for key, value in facts.items() if key != FACTS}
    if (FACTS in facts or TENSORS in facts) and facts.get(FACTS) != _digest_of_facts(others):
        raise ValueError("damaged: its metadata are not those that were saved, by their SHA-256")
    return others


def _digest_of_facts(facts: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 of tensors by name, of their types and shapes, in the names' order."""
    found = hashlib.sha256()
    for name, value in sorted(tensors, key=lambda one: one[0]):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def refuse_odd(tensors: Mapping[str, Tensor], file: Path) -> None:
    """WeightsError for a tensor that is no plain array of numbers."""
    if odd := next((name for name, value in tensors.items() if not is_plain(value)), None):
        what = f"no plain array of numbers ({tensors[odd].dtype}, {tensors[odd].layout})"
        raise WeightsError(f"{file}: {odd!r:.200} is {what}; save it as one, as float32 and by .contiguous()")


def is_plain(tensor: Tensor) -> bool:
    """Whether it has its numbers in memory, each its own: a file of a few bytes can hold a tensor of any size
    that is sparse, without memory, or one number repeated.
    """
    if (
        tensor.dtype not in NUMBERS
        or tensor.layout != torch.strided
        or tensor.device.type != "cpu"
        or tensor.is_nested
        or tensor.is_quantized
    ):
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()

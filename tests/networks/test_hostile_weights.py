"""Weights that were made to do harm: code in pickles, headers that lie, tensors larger than their file, no numbers."""

from __future__ import annotations

import json
import pickle
import struct
import warnings
from pathlib import Path

import pytest
import torch

from hostile import Evil, refused, seal
from segda import run as runs
from segda.errors import WeightsError
from segda.networks.weights.load import read
from small_run import write_run


@pytest.mark.parametrize("zipped", [True, False], ids=["archive", "legacy"])
@pytest.mark.parametrize(
    "wrapped",
    [
        lambda evil: evil,
        lambda evil: {"state_dict": {"a": torch.zeros(2), "b": evil}},
        lambda evil: {"meta": {"hooks": [evil]}, "state_dict": {"a": torch.zeros(2)}, "optimizer": {}},
        lambda evil: {"model": {"state_dict": {"layer": (torch.zeros(2), {"x": evil})}}},
    ],
    ids=["alone", "among tensors", "as mmcv's meta", "deep"],
)
def test_code_in_a_checkpoint_is_not_run(tmp_path, zipped, wrapped):
    mark = tmp_path / "was run"
    for suffix in (".pth", ".pt", ".bin", ".ckpt"):
        path = tmp_path / f"weights{suffix}"
        torch.save(wrapped(Evil(mark)), path, _use_new_zipfile_serialization=zipped)
        assert "refused and not run" in refused(read, path, kind=WeightsError)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists(), "the file does harm to who trusts it"


def test_code_in_a_plain_pickle_or_a_runs_checkpoint_is_not_run(tmp_path):
    mark = tmp_path / "was run"
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"a": Evil(mark)}))
    refused(read, tmp_path / "plain.pth", kind=WeightsError)
    run = write_run(tmp_path / "run")
    for sealed in (False, True):
        torch.save({"format": runs.CHECKPOINT_FORMAT, "method": Evil(mark)}, run / "last.pt")
        if sealed:
            (run / "last.pt").write_bytes(seal((run / "last.pt").read_bytes()))
        assert "was not run" in refused(runs.load_checkpoint, run, kind=WeightsError)
    assert not mark.exists()


def test_a_torchscript_archive_is_refused(tmp_path):
    path = tmp_path / "script.pt"
    with warnings.catch_warnings(action="ignore"):
        torch.jit.script(torch.nn.Linear(2, 2)).save(path)
    assert "a TorchScript archive, which holds a program" in refused(read, path, kind=WeightsError)
    path.write_bytes(path.read_bytes()[:900])
    assert "fetch or copy it again" in refused(read, path, kind=WeightsError)


def safetensors_of(path: Path, header: dict | bytes, content: bytes = b"", size: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if size is None else size) + text + content)
    return path


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ({"a": ONE | {"shape": [2**40], "data_offsets": [0, 2**42]}}, None),
        ({"a": ONE | {"shape": [-1]}}, None),
        ({"a": ONE | {"data_offsets": [4, 0]}}, None),
        ({"a": ONE | {"data_offsets": [0, 8]}}, None),
        ({"a": ONE, "b": ONE}, None),
        ({"a": ONE | {"dtype": "X"}}, None),
        ({"a": ONE}, 2**62),
        (b"[" * 5000, None),
        (b"", None),
        (b"\xff\xfe", None),
    ],
)
def test_a_safetensors_file_with_a_lying_header_is_refused(tmp_path, header, size):
    refused(read, safetensors_of(tmp_path / "x.safetensors", header, bytes(4), size), kind=WeightsError)
    run = write_run(tmp_path / "run")
    safetensors_of(run / "network.safetensors", header, bytes(4), size)
    refused(runs.step_of, run, kind=WeightsError)
    refused(runs.load_network, run, kind=WeightsError)


@pytest.mark.parametrize(("kind", "size"), [("F8_E4M3", 4), ("F4", 8), ("C64", 0)])
def test_numbers_of_a_type_that_cannot_be_looked_at_are_refused(tmp_path, kind, size):
    told = {"a": {"dtype": kind, "shape": [size], "data_offsets": [0, 4 * bool(size)]}}
    path = safetensors_of(tmp_path / "x.safetensors", told, bytes(4 * bool(size)))
    for call in (read, runs.read_tensors):
        assert "no plain array of numbers" in refused(call, path, kind=WeightsError)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_network_of_numbers_that_are_none_is_refused(tmp_path, value):
    run = write_run(tmp_path / "run")
    tensors = runs.read_tensors(run / "network.safetensors")
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.ndim)
    tensors[name].view(-1)[0] = value
    from safetensors.torch import save_file

    save_file(tensors, run / "network.safetensors", {"step": "nan"})
    assert "not finite" in refused(runs.load_network, run, kind=WeightsError)
    assert "not a whole network" in refused(runs.step_of, run, kind=WeightsError)


NOTHING = torch.sparse_coo_tensor(
    torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0), (10**6, 10**6), check_invariants=True
)


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(1).expand(10**6, 10**6), torch.zeros(9, device="meta"), NOTHING],
    ids=["repeated", "without memory", "sparse"],
)
def test_a_tensor_that_is_larger_than_its_file_is_refused(tmp_path, tensor):
    torch.save({"state_dict": {"a": tensor}}, tmp_path / "x.pth")
    assert (tmp_path / "x.pth").stat().st_size < 5000
    assert "no plain array of numbers" in refused(read, tmp_path / "x.pth", kind=WeightsError)

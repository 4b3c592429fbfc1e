"""Files that are damaged in place: benchmarks/damage.py on a few bits, blocks and cuts of each kind."""

from __future__ import annotations

import random
import shutil
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import damage
from hostile import refused
from segda import run as runs
from segda.errors import WeightsError
from segda.ground.sealed import Sealed, check_sealed, with_digest, without_digest
from segda.networks.weights.files import read_facts, read_tensors, save_tensors

NUMBERS = 4, 2, 1


@pytest.fixture(scope="module")
def kinds(tmp_path_factory) -> tuple[Path, dict[str, damage.Kind]]:
    place = tmp_path_factory.mktemp("damage") / "place"
    return place, damage.kinds(place)


def test_of_no_kind_is_anything_lost(kinds, capfd):
    place, every = kinds
    for name, kind in every.items():
        outcomes = damage.tried(kind, place, NUMBERS, random.Random(0))
        assert sum(count.total() for count in outcomes.values()) == 2 * sum(NUMBERS)
        for how, count in outcomes.items():
            assert not count["lost"], (name, how, capfd.readouterr().err)
            # What is cut off is read as something that is not there yet, and made again.
            assert count["found"] or (name, how) == ("scratch, *.part", "command, cut"), (name, how)


def test_what_is_read_as_something_else_is_counted_as_lost(kinds):
    place, every = kinds
    careless = damage.Kind(place / "x", (place / "x").read_bytes, every["network.safetensors"].command)
    careless.file.write_bytes(bytes(999))
    outcomes = damage.tried(careless, place, (3, 0, 0), random.Random(0))
    assert outcomes == {"Python, bit": {"lost": 3}, "command, bit": {"harmless": 3}}


def test_the_older_checkpoint_that_is_named_is_whole(kinds, tmp_path):
    run = shutil.copytree(kinds[0] / "run", tmp_path / "run")
    last, kept = run / "last.pt", runs.checkpoints(run)
    assert list(kept) == [1, 2]
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    shutil.copyfile(last, kept[2])
    assert f"mv {kept[1]} {last}, or train anew" in refused(runs.load_checkpoint, run, kind=WeightsError)
    kept[1].write_bytes(kept[1].read_bytes()[:-1])
    assert " mv " not in refused(runs.load_checkpoint, run, kind=WeightsError)


@pytest.mark.parametrize("content", [b"", b"abc", bytes(1 << 20), bytes(3 << 20) + b"x"], ids=len)
def test_a_sealed_file_is_whole_until_it_is_changed(tmp_path, content):
    path = tmp_path / "x"
    with path.open("wb") as file:
        sealed = Sealed(file)
        sealed.write(content[:7])
        sealed.write(content[7:])
        sealed.seal()
    check_sealed(path)
    whole = path.read_bytes()
    for other in (whole[:-1], whole[1:], whole + b"\n", content, b"x" + whole, whole.upper(), b""):
        path.write_bytes(other)
        with pytest.raises(ValueError, match="digest|damaged"):
            check_sealed(path)


def test_values_with_a_digest_are_those_that_were_written():
    values = {"a": 0.1, "b": [1, None, "é"], "c": {3: (1, 2)}}
    written = with_digest(values)
    assert without_digest(written) == {"a": 0.1, "b": [1, None, "é"], "c": {"3": [1, 2]}}
    for changed in (written | {"a": 0.2}, written | {"d": 1}, {**values, "sha256": "0" * 64}, values):
        with pytest.raises(ValueError, match="sha256"):
            without_digest(changed)


def test_a_file_of_weights_without_a_digest_is_read_and_half_a_digest_is_not(tmp_path):
    from safetensors.torch import save_file

    path, tensors = tmp_path / "x.safetensors", {"a": torch.arange(4.0), "b": torch.ones(2, dtype=torch.bfloat16)}
    save_tensors(path, {"step": "3"}, tensors)
    facts = read_facts(path)
    assert facts["step"] == "3" and read_tensors(path)[1]
    save_file(tensors, path, {"step": "3"})
    found, checked = read_tensors(path)
    assert not checked and all(torch.equal(found[name], tensors[name]) for name in tensors)
    for half in ({**facts, "step": "4"}, {"tensors_sha256": facts["tensors_sha256"]}, {"facts_sha256": "0" * 64}):
        save_file(tensors, path, half)
        for read in (read_facts, read_tensors):
            with pytest.raises(ValueError, match="damaged: its metadata"):
                read(path)


def test_a_run_whose_network_has_no_digest_is_used_with_a_warning(kinds, tmp_path, warned):
    from safetensors.torch import load_file, save_file

    run = shutil.copytree(kinds[0] / "run", tmp_path / "run")
    path = run / "network.safetensors"
    runs.load_network(run)
    assert not warned
    save_file(load_file(path), path, {"step": "2"})
    runs.load_network(run)
    (line,) = warned
    assert str(path) in line and "no digest" in line

"""Models on the hub, of which there is a cache here and a stand-in for the rest: revisions, digests, no pickles."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from segda.errors import WeightsError
from segda.ground.trust import trusting
from segda.networks.weights.hub import HUB_NAME, at_commit, from_hub

OLD, NEW = "a" * 40, "b" * 40
NAME = "somebody/model"


class Hub:
    """A cache as huggingface_hub keeps it, and what the hub itself answers: nothing is fetched in a test."""

    def __init__(self, folder: Path, monkeypatch):
        self.place = folder / "models--somebody--model"
        self.asked: list[str | None] = []
        self.listed: list[str] | None = None
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: self)

    def model_info(self, name: str, revision: str | None, timeout: int):
        self.asked.append(revision)
        if self.listed is None:
            raise ConnectionError("no network in a test")
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=file) for file in self.listed])

    def hold(self, commit: str, file: str, value: float) -> Path:
        path = self.place / "snapshots" / commit / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.endswith(".safetensors"):
            save_file({"x": torch.tensor([value])}, path)
        else:
            torch.save({"x": torch.tensor([value])}, path)
        (self.place / "refs").mkdir(exist_ok=True)
        (self.place / "refs" / "main").write_text(commit)
        return path


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Hub:
    return Hub(tmp_path / "cache", monkeypatch)


def refused(where: str) -> str:
    with pytest.raises(WeightsError) as caught:
        from_hub(where)
    return str(caught.value)


def test_a_revision_is_that_one_and_none_is_the_newest(hub):
    old, new = hub.hold(OLD, "model.safetensors", 1.0), hub.hold(NEW, "model.safetensors", 2.0)
    assert from_hub(NAME) == new and from_hub(f"{NAME}@{OLD}") == old and from_hub(f"{NAME}@{NEW}") == new
    assert hub.asked == []
    assert "cannot be had" in refused(f"{NAME}@{'c' * 40}") and hub.asked == ["c" * 40]


def test_what_is_named_without_a_revision_is_told_with_the_commit_that_was_read(hub, tmp_path):
    file, digest = hub.hold(NEW, "model.safetensors", 2.0), "#" + "0" * 64
    assert at_commit(NAME, file) == f"{NAME}@{NEW}" and at_commit(NAME + digest, file) == f"{NAME}@{NEW}{digest}"
    assert at_commit(f"{NAME}@main", file) == f"{NAME}@main"
    assert at_commit("runs/mine", tmp_path / "runs" / "mine" / "model.safetensors") == "runs/mine"


def test_a_digest_is_that_of_the_file_or_the_file_is_refused(hub):
    path = hub.hold(OLD, "model.safetensors", 1.0)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert from_hub(f"{NAME}#{digest}") == from_hub(f"{NAME}@{OLD}#{digest}") == path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # one bit
    path.write_bytes(content)
    message = refused(f"{NAME}@{OLD}#{digest}")
    assert digest in message and hashlib.sha256(content).hexdigest() in message


def test_a_pickle_is_read_only_where_it_is_trusted(hub):
    pickle = hub.hold(OLD, "pytorch_model.bin", 1.0)
    message = refused(NAME)  # in the cache, without a network
    assert f"--trust {NAME}" in message and "was not read" in message
    hub.listed = ["config.json", "pytorch_model.bin"]
    assert refused(NAME) == message
    with trusting("somebody/else"):
        assert refused(NAME) == message
    for place in (NAME, [f"{NAME}@{OLD}"]):
        with trusting(place):
            assert from_hub(f"{NAME}@{OLD}") == pickle
    safe = hub.hold(OLD, "model.safetensors", 1.0)
    with trusting(NAME):
        assert from_hub(NAME) == safe


def test_parts_are_safe_as_well_and_a_digest_is_of_one_file(hub):
    index = hub.hold(OLD, "model-1.safetensors", 1.0).with_name("model.safetensors.index.json")
    index.write_text(json.dumps({"weight_map": {"x": "model-1.safetensors"}}))
    assert from_hub(NAME) == index
    assert "pin the revision" in refused(f"{NAME}#{'0' * 64}")
    hub.hold(OLD, "pytorch_model-1.bin", 1.0)
    index.write_text(json.dumps({"weight_map": {"x": "pytorch_model-1.bin"}}))
    assert "names a pickle" in refused(NAME)


@pytest.mark.parametrize("name", ["one", "a/b/c", "a/b@", "a/b#12", f"a/b#{'A' * 64}", "a/b@c d", "a/../b", "/a/b"])
def test_what_is_no_name_is_none(name):
    assert not HUB_NAME.fullmatch(name)

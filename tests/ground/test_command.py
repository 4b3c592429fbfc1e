"""The command that a run folder keeps: enough to repeat it, and nothing that opens a door."""

from __future__ import annotations

import json
import sys

import pytest

from segda.commands.train import train
from segda.ground.hardware import command


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["/home/me/.venv/bin/segda", "train", "x.yaml", "--set", "seed=1"], "segda train x.yaml --set seed=1"),
        (["/usr/lib/python3/segda/__main__.py", "train", "../x.yaml"], "segda train ../x.yaml"),
        (["me.py", "--token", "abc", "--out", "run"], "me.py --token *** --out run"),
        (["me.py", "--hub-token=abc", "--PASSWORD=d e"], "me.py --hub-token=*** --PASSWORD=***"),
        (["me.py", "--set", "api_key=abc", "wandb.secret=abc"], "me.py --set api_key=*** wandb.secret=***"),
        (["me.py", "hf_abcdefghijklmnop", "x=ghp_abcdefghijklmnop"], "me.py *** x=***"),
        (["me.py", "https://me:pass@host/data"], "me.py https://***@host/data"),
        (["me.py", "--use-token", "--out", "run"], "me.py --use-token --out run"),
        (["me.py", "--allow-changed", "optim.lr", "hf_mirror"], "me.py --allow-changed optim.lr hf_mirror"),
        (["segda", "--trust", "runs/tokenizer", "keyboard=1"], "segda --trust runs/tokenizer keyboard=1"),
        ([], ""),
    ],
)
def test_secrets_are_hidden_and_all_else_stays(words, kept):
    assert " ".join(command(words)) == kept


def test_a_run_folder_keeps_no_secret(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/home/me/bin/mine.py", "--hf-token", "hf_0123456789abcdef", "--steps", "1"])
    train(recipe.override("steps=1", "evaluate.data=[]"), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["command"] == [
        *("mine.py", "--hf-token", "***", "--steps", "1")
    ]
    for path in (tmp_path / "run").rglob("*"):
        assert not path.is_file() or b"0123456789abcdef" not in path.read_bytes()

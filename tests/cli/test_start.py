"""What a command imports before it answers: nothing that computes, where nothing is computed. torch alone takes longer
than all else that such a command does.
"""

import json
import os
import subprocess
import sys
from typing import get_args

import pytest
import yaml

from processes import HANGS
from segda.cli.main import COMMANDS
from segda.ground import safe_yaml
from segda.ground.choices import What
from segda.recipes.blocks import FOLDER, compose, shipped

HEAVY = (
    "torch",
    "numpy",
    "transformers",
    "cv2",
    "matplotlib",
    "scipy",
    "onnx",
    "onnxruntime",
    "openvino",
    "PIL",
    "fastapi",
)

PROGRAM = """
import contextlib, io, json, sys
from segda.cli.main import main
found = []
for words in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        code = main(words)
    found.append([code, said.getvalue().splitlines(), sorted(sys.modules)])
json.dump(found, sys.stdout)
"""

DATA = ("--data", "streets:test")
RIGHT = [
    (), ("--help",), ("--version",), *(("list", what) for what in get_args(What)), ("recipe", "methods/ebda"),
    ("recipe", "ebda_streets"), ("recipe", "fda_streets"), ("recipe", "--schema"),
    *((command, "--help") for command in COMMANDS),
]  # fmt: skip
WRONG = [
    ("trian",), ("train", "--nonsense"), ("list", "nonsense"), ("train", "ebda_street"),
    ("recipe", "ebda_street"), ("recipe", "methods/ebd"), ("evaluate", "missing", *DATA),
    ("predict", "missing", *DATA, "--out", "out"), ("export", "missing", "--to", "onnx"),
    ("compare", "missing"), ("report", "missing"), ("select", "missing", *DATA), ("benchmark", "missing"),
    ("serve", "missing"), ("push", "missing", "me/mine"), ("translate", "missing", *DATA, "--out", "out"),
    ("pseudo-label", "missing", *DATA, "--rule", "confident", "--out", "out"),
    ("adapt", "missing", *DATA, "--method", "tent"), ("check-data", "streets:tset"),
]  # fmt: skip
"""A name or an option that is misspelt."""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Words -> exit code, what was said on standard error, modules; one after the other in a process of their own."""
    folder, every = tmp_path_factory.mktemp("start"), [*RIGHT, *WRONG]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps(every), cwd=folder, text=True, capture_output=True,
        timeout=HANGS, env=os.environ | {"SEGDA_DATA": str(folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(zip(every, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("words", [*RIGHT, *WRONG], ids=" ".join)
def test_what_computes_nothing_imports_nothing_that_computes(words, answers):
    code, said, modules = answers[words]
    assert set(HEAVY) & set(modules) == set(), "imported by this command, or by one before it"
    assert (code, len(said)) == ((0, 0) if words in RIGHT else (2, 1)), said


def test_every_command_that_takes_a_run_is_asked_for_one_that_is_missing():
    takes = {"evaluate", "predict", "export", "push", "benchmark", "serve", "pseudo-label", "translate", "compare"}
    takes |= {"select", "adapt", "report"}
    assert takes == {words[0] for words in WRONG if "missing" in words} <= set(COMMANDS)


def test_what_comes_with_segda_means_the_same_to_libyaml_and_to_pyyaml():
    files = sorted(FOLDER.rglob("*.yaml"))
    assert len(files) > 100
    for file in files:
        assert safe_yaml.read_commented(file, ours=True) == safe_yaml.read_commented(file), file


def test_a_text_of_the_users_is_read_by_pyyaml_alone():
    # libyaml takes a tab within a word: the file would be good on one machine and not on another.
    with pytest.raises(ValueError, match="cannot start any token"):
        safe_yaml.yaml_values("use: [a\tb]")
    assert yaml.__with_libyaml__


def test_recipes_that_share_a_block_leave_it_as_it_is():
    once = {name: compose(name) for name in shipped()}
    assert {name: compose(name) for name in shipped()} == once

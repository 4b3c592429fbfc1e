"""Several processes share images: what they write and return is what one process does, also where some have none."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import small_recipe, write_camvid
from forks import Forks
from segda.data.sets.datasets import open_data
from segda.distributed import group
from segda.evaluation.measure import evaluate_network
from segda.evaluation.submission import SERVERS
from segda.ground import progress
from segda.networks import NETWORKS
from segda.recipes.build import build
from sharing import everything, small_servers, write_tree
from small_labels import content
from small_run import SPACE

# More processes than cores are slow, not wrong.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

CPU = torch.device("cpu")

TESTS = Path(__file__).parents[1]
COUNTS = (1, 3)
"""Of processes. Three do not share seven images evenly, and of two images one of them gets none."""


def together(tree: Path, forks: Forks) -> subprocess.CompletedProcess:
    """Three processes at work in a tree, under torchrun; see sharing.py."""
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    words = [*several, TESTS / "sharing.py", tree, "everything", "mistakes", "broken"]
    return forks.run(*words)


def alone(tree: Path) -> subprocess.CompletedProcess:
    """The same in this process."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        patch.chdir(tree)
        for name, server in small_servers().items():
            patch.setitem(SERVERS, name, server)
        tree.with_name("1-everything-0.json").write_text(json.dumps(everything()))
    return subprocess.CompletedProcess([], 0, said.getvalue(), "")


@pytest.fixture(scope="module")
def place(tmp_path_factory, forks):
    """Copies of one tree (times of files too) by the number of processes that wrote into it, and what these said."""
    folder = tmp_path_factory.mktemp("place")
    plain = write_tree(folder / "plain")
    trees = {count: Path(shutil.copytree(plain, folder / str(count))) for count in COUNTS}
    return {count: (tree, alone(tree) if count == 1 else together(tree, forks)) for count, tree in trees.items()}


def returned(place, count: int, work: str) -> list[dict]:
    """By each process."""
    tree, done = place[count]
    paths = [tree.with_name(f"{count}-{work}-{rank}.json") for rank in range(count)]
    assert all(path.exists() for path in paths), done.stderr
    return [json.loads(path.read_text()) for path in paths]


def errors(done: subprocess.CompletedProcess) -> list[str]:
    return [line.removeprefix("segda: ") for line in done.stderr.splitlines() if line.startswith("segda: ")]


def test_several_processes_write_the_bytes_of_one(place):
    returned(place, 3, "everything")
    theirs, ours = (
        {path: what for path, what in content(place[n][0]).items() if not path.startswith(("data/", "bad/"))}
        for n in COUNTS
    )
    assert sorted(ours) == sorted(theirs)
    assert [path for path in theirs if ours[path] != theirs[path]] == []
    kinds = {kind: sum(path.startswith(kind) for path in theirs) for kind in ("run/reports", "out", "kept", "ensemble")}
    assert kinds == {"run/reports": 4, "out": 50, "kept": 2, "ensemble": 1}


def test_each_of_several_processes_returns_what_one_does(place):
    (one,) = returned(place, 1, "everything")
    assert returned(place, 3, "everything") == [one] * 3
    assert sum(map(sum, one["pixels"][0])) == 7 * 48 * 64 and one["pixels"][0] == one["pixels"][1]


@pytest.mark.parametrize("count", COUNTS)
def test_a_result_is_printed_once(place, count):
    shown, end = json.JSONDecoder().raw_decode(place[count][1].stdout)
    names = [(each["run"], each["protocol"]["data"], each["protocol"]["weights"]) for each in shown]
    assert names == [
        ("run", "camvid:train", "student"), ("run", "camvid:train", "teacher"), ("run", "camvid:val", "student"),
        ("run", "camvid:val", "teacher"), ("other", "camvid:train", "student"), ("other", "camvid:val", "student"),
    ]  # fmt: skip
    rest = place[count][1].stdout[end:].strip()
    assert rest == ("5 images; the test set of acdc has 2000" if count == 3 else "")
    assert all(sum(map(sum, each["counts"])) > 0 for each in shown)


def test_an_error_of_one_process_is_said_once_and_all_end_with_its_code(place):
    *said, _ = errors(place[3][1])  # the last is of what ends all
    ends = returned(place, 3, "mistakes")
    codes = {name: [each[name] for each in ends] for name in ends[0]}
    label = codes.pop("label")
    assert label[::2] == [2, 2] and "0006R0_f02.png" in label[1]
    image = codes.pop("image to label")
    assert image[::2] == [2, 2] and "0006R0_f02.png" in image[1]
    assert codes == {
        name: [2, 2, 2]
        for name in ("no such data", "options", "image", "image to predict", "folder", "submission")
    }  # fmt: skip
    assert len(said) == len(codes)
    for line, part in zip(said, ("tst", "--shares", "f02.png", "f02.png", "blocked/reports", "second"), strict=True):
        assert part in line


def test_an_error_leaves_nothing_half_written(place):
    there = {str(path.relative_to(place[3][0])) for path in place[3][0].glob("bad/*")}
    assert there == {"bad/labels"}, "the scratch files of labels, from which a repeated call goes on"
    assert {path.name for path in (place[3][0] / "bad" / "labels").iterdir()} == {".scratch"}
    assert not list(place[3][0].rglob("*.partial"))


def test_a_broken_image_that_one_process_reads_ends_the_command_with_one_line(place):
    tree, done = place[3]
    assert done.returncode == 1  # torchrun's own, whatever the processes' is
    assert "0006R0_f02.png" in errors(done)[-1]
    assert "Traceback (most recent call last)" not in done.stderr.rpartition("segda: ")[0]
    assert not (tree / "bad" / "pictures").exists()


@pytest.mark.parametrize("count", [2, 5])
def test_the_counts_of_all_processes_add_up_to_those_of_one(tmp_path, monkeypatch, count):
    dataset = open_data("camvid:test", write_camvid(tmp_path), SPACE)
    torch.manual_seed(1)
    recipe = small_recipe(tmp_path)
    network = build(NETWORKS, recipe.network, "network", class_names=SPACE.classes)
    known = {"weights": "student", "step": None, "recipe": "r", "precision": "float32"}

    def counts() -> np.ndarray:
        with progress.shown():
            return evaluate_network(network, dataset, recipe.evaluate, CPU, nullcontext(), known).counts

    whole = counts()
    monkeypatch.setenv("WORLD_SIZE", str(count))
    monkeypatch.setattr(group, "all_reduce_sum", lambda own: own)
    parts, shown = [], []
    monkeypatch.setattr(progress, "_lines", lambda items, title: shown.append(len(items)) or items)
    for rank in range(count):
        monkeypatch.setenv("RANK", str(rank))
        parts.append(counts())
    assert np.array_equal(sum(parts), whole) and whole.sum() > 0
    assert [part.any() for part in parts] == [rank < 3 for rank in range(count)]
    assert shown == [2 if count == 2 else 1]  # by the first alone

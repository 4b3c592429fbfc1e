"""How many scenes fit in memory: the search where memory that is out is an error, the line where it is not."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch

import processes
from conftest import OF_TORCH_ALONE, small_recipe
from segda.cli.main import main
from segda.commands.train import train
from segda.data.stream.settings import Augment
from segda.errors import RecipeError, RunFailure
from segda.ground.hardware import free_memory, peak_memory
from segda.recipes.recipe import Recipe
from segda.training import max_batch as module
from segda.training.assembly import Training
from segda.training.max_batch import (
    MOST,
    Measured,
    Trial,
    by_measuring,
    estimate,
    find_max_batch,
    largest,
    search,
    slope,
)

GIB = 2**30


@pytest.fixture
def recipe() -> Recipe:
    """Of no data: there is nothing at its root."""
    return small_recipe(Path("nowhere"), "ebda")


# Where memory that is out is an error


@pytest.mark.parametrize("most", [1, 2, 7, 64])
@pytest.mark.parametrize("least", [1, 2, 3])
def test_the_search_finds_just_the_largest_that_fits(least, most):
    for size in range(most + 3):
        tried: list[int] = []

        def fits(batch, size=size, tried=tried):
            tried.append(batch)
            return batch <= size

        expected = min(size, most) if size >= least and most >= least else 0
        assert largest(fits, least, most) == expected
        assert len(set(tried)) == len(tried)
        assert all(least <= batch <= most for batch in tried)


@pytest.fixture
def small_device(monkeypatch):
    """A device whose memory is out above so many scenes, while they are computed with."""

    def of(size: int) -> list[int]:
        tried: list[int] = []
        step = Training.step

        def limited(self, batches):
            count = len(batches[0].source.image)
            if len(tried) == 0 or tried[-1] != count:
                tried.append(count)
            terms = step(self, batches)
            if count > size:
                raise torch.OutOfMemoryError("out of memory")
            return terms

        monkeypatch.setattr(Training, "step", limited)
        return tried

    return of


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_device_that_has_no_more_memory_is_searched_to_the_last_scene(recipe, small_device, size):
    tried = small_device(size)
    trial = Trial(recipe)
    batch, measured = search(trial)
    assert batch == size
    assert tried[:2] == [1, 2]
    assert [one.batch for one in measured] == sorted(tried)
    assert all((one.memory is not None) == (one.batch <= size) for one in measured)
    assert all(parameter.grad is None for parameter in trial.training.method.parameters())


class Cuda:
    """What is asked of a cuda device of 8 GiB, of which 6 are free, played on the processor."""

    def __init__(self, monkeypatch):
        self.shares: list[float] = []
        played = {
            "empty_cache": lambda: None,
            "mem_get_info": lambda device: (6 * GIB, 8 * GIB),
            "memory_reserved": lambda device: GIB,
            "set_per_process_memory_fraction": lambda share: self.shares.append(share),
        }
        for name, does in played.items():
            monkeypatch.setattr(torch.cuda, name, does)

    def find_max_batch(self, recipe: Recipe):
        return module.by_trying(recipe, torch.device("cpu"))


def test_on_cuda_a_share_of_the_free_memory_is_the_limit_and_only_for_the_time(recipe, small_device, monkeypatch, said):
    small_device(3)
    cuda = Cuda(monkeypatch)
    found = cuda.find_max_batch(recipe)
    assert (found.batch, found.checked) == (3, True)
    assert found.limit == int(0.9 * 7 * GIB)
    assert cuda.shares == pytest.approx([0.9 * 7 / 8, 1])
    assert said == ["limit: 6.30 GiB, 90% of what is free of the device's 8.00 GiB"]


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("activation_checkpointing=false", "activation_checkpointing: true, "),
        ("activation_checkpointing=true", "set a "),
    ],
)
def test_a_step_that_does_not_fit_at_all_is_a_failure_with_ways_out(recipe, small_device, monkeypatch, setting, hint):
    small_device(0)
    cuda = Cuda(monkeypatch)
    with pytest.raises(RunFailure, match=rf"1 of each domain's scenes \(32 x 32\) does not fit in 6.30 GiB; .*{hint}"):
        cuda.find_max_batch(recipe.override(setting))
    assert cuda.shares[-1] == 1


def test_a_network_that_does_not_fit_itself_is_the_same_failure(recipe, monkeypatch):
    def build(*_, **__):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(module.assembly, "build_method", build)
    cuda = Cuda(monkeypatch)
    with pytest.raises(RunFailure, match="does not fit in 6.30 GiB"):
        cuda.find_max_batch(recipe)
    assert cuda.shares[-1] == 1


def test_another_error_of_a_step_is_no_want_of_memory(recipe, monkeypatch):
    def step(self, batches):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Training, "step", step)
    with pytest.raises(RuntimeError, match="mat1"):
        Trial(recipe)(1)


def test_batch_norm_after_pooling_begins_with_two_scenes(recipe, small_device):
    network = (
        "{name: encoder_decoder, encoder: tiny, decoder: upernet_256, weights: scratch, dropout: 0.1, drop_path: 0.1}"
    )
    tried = small_device(2)
    assert search(Trial(recipe.override(f"network={network}")))[0] == 2
    assert tried == [2, 4, 3]


def test_a_step_sees_what_the_recipe_says(recipe, monkeypatch):
    seen = []
    monkeypatch.setattr(Training, "step", lambda self, batches: seen.append(batches))
    changed = recipe.override(
        "accumulate=3", "data.source.augment.crop=[32, 64]", "data.target.augment={resize: [96, 64], crop: null, "
        "max_class_share: null, flip: 0.5, ignore_top: 1}",
    )  # fmt: skip
    Trial(changed)(5)
    for batches in seen:
        assert len(batches) == 3
        assert batches[0].source.image.shape == (5, 3, 32, 64) and batches[0].source.label.shape == (5, 32, 64)
        assert batches[0].target.image.shape == (5, 3, 64, 96) and batches[0].target.label is None
        assert batches[0].source.weight is None and batches[0].target.weight.shape == (5, 64, 96)
        assert int(batches[0].source.label.max()) == 10  # of CamVid's 11 classes


@pytest.mark.parametrize(("steps", "begin", "at"), [(10, 7, [7, 8]), (8, 7, [6, 7]), (1, 0, [0, 1])])
def test_self_training_has_begun(recipe, monkeypatch, steps, begin, at):
    seen = []

    def step(self, batches):
        seen.append(self.t)
        self.t += 1

    monkeypatch.setattr(Training, "step", step)
    Trial(recipe.override(f"method.begin={begin}", f"steps={steps}"))(1)
    assert seen == at


def test_no_weights_are_read_whoever_has_them():
    recipe = small_recipe(Path("nowhere"), "vfm_plus").override("method.distillation.weights=nobody/has-this")
    assert Trial(recipe)(1).memory


# Where it is none


def test_the_line_goes_through_the_last_two():
    measured = [Measured(1, 5 * GIB), Measured(2, 5 * GIB), Measured(4, 7 * GIB)]
    assert slope(measured) == GIB
    assert estimate(measured, 12 * GIB) == 9
    assert estimate(measured, 12 * GIB - 1) == 8
    assert estimate([*measured, Measured(8, None)], 12 * GIB) == 7  # 8 were seen not to fit
    assert estimate([*measured, Measured(9, 13 * GIB)], 12 * GIB) == 8
    assert estimate(measured, 6 * GIB) == 3  # 4 were not, 2 were
    assert estimate([Measured(1, GIB)], 3 * GIB) == MOST
    assert estimate([Measured(1, GIB), Measured(2, None)], 3 * GIB) == 1


@pytest.mark.long
def test_small_steps_in_another_process_give_an_estimate_that_a_step_confirms(recipe, monkeypatch, said):
    monkeypatch.setattr(module, "free_memory", lambda: (1200 * 2**20, "a test"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as the tests themselves: threads of a busy machine wait for each other
    monkeypatch.setattr(module, "CHECK_SECONDS", 600)
    found = by_measuring(
        recipe.override(
            f"network={OF_TORCH_ALONE}",
            *(f"data.{domain}.augment.crop=[256, 256]" for domain in ("source", "target")),
        )
    )
    assert said[0] == "limit: 0.94 GiB, 80% of the 1.17 GiB that are free (a test)"
    assert found.limit == 960 * 2**20 and found.checked
    first, second, *_, last = (one.memory for one in found.measured)
    assert 100 * 2**20 < first < last  # torch alone takes the hundred
    assert second - first < 200 * 2**20
    (step,) = (one for one in found.measured if one.batch == found.batch)
    assert 0.87 * found.limit < step.memory <= found.limit  # a scene takes 0.05 of it


def test_what_other_processes_say_decides(recipe, monkeypatch):
    asked: list[int | None] = []

    def machine(base: float, scene: float, *, seconds: float = 0.1, ends_above: int = MOST):
        def measure(batch):
            return Measured(batch, None if batch > ends_above else int((base + scene * batch) * GIB), seconds * batch)

        def elsewhere(recipe, batch, most):
            asked.append(batch)
            return [measure(one) for one in ([1, 2, 4] if batch is None else [batch])]

        asked.clear()
        monkeypatch.setattr(module, "elsewhere", elsewhere)
        monkeypatch.setattr(module, "free_memory", lambda: (10 * GIB, "a test"))
        return by_measuring(recipe)

    assert (machine(1, 0.5).batch, asked) == (14, [None, 14])  # 1 + 14 / 2 = 8 of 10 GiB
    assert machine(1, 0.5).checked
    slow = machine(1, 0.5, seconds=100)
    assert (slow.batch, slow.checked, asked) == (14, False, [None])
    # Memory is out earlier than the line says.
    assert (machine(1, 0.5, ends_above=12).batch, asked) == (12, [None, 14, 13, 12])
    assert machine(1, 3).batch == 2
    assert machine(4, 4).batch == 1
    with pytest.raises(RunFailure, match="1 of each domain's scenes .* does not fit in 8.00 GiB"):
        machine(8, 1)
    with pytest.raises(RunFailure, match="does not fit"):
        machine(1, 1, ends_above=0)


def test_a_mistake_in_the_recipe_comes_back_as_itself(recipe, monkeypatch):
    def run(command, *, input, **_):
        """What the other process does, in this one."""
        with redirect_stdout(StringIO()) as said, monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", StringIO(input))
            patch.setattr(resource, "setrlimit", lambda *_: None)
            module.answer()
        return subprocess.CompletedProcess(command, 0, said.getvalue(), "")

    monkeypatch.setattr(subprocess, "run", run)
    changed = recipe.override("method.feature_distance.classes=[road, moon]")
    with pytest.raises(RecipeError, match="no class 'moon'"):
        module.elsewhere(changed, 1, 8 * GIB)


# Asked wrongly


def test_without_a_crop_there_is_no_size(recipe):
    with pytest.raises(RecipeError, match="data.target.augment: without crop and resize"):
        find_max_batch(recipe.override("data.target.augment.crop=null"))
    keep = Augment(resize=(64, 32), crop=None, max_class_share=None, flip=0)
    assert module.size(keep, "source") == (32, 64)


@pytest.mark.parametrize("other", ["check", "resume", "overwrite"])
def test_it_is_asked_alone(recipe, tmp_path, other):
    with pytest.raises(RecipeError, match="--max-batch trains nothing; leave out --check"):
        train(recipe, tmp_path / "run", max_batch=True, **{other: True})


def test_one_process_is_measured(recipe, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="--max-batch measures one process; leave out torchrun"):
        find_max_batch(recipe)


def test_a_device_that_cannot_be_asked_is_named(recipe, monkeypatch):
    monkeypatch.setattr(module, "pick_device", lambda name: torch.device("mps"))
    with pytest.raises(RecipeError, match="not mps; try batches with --check"):
        find_max_batch(recipe)


def test_the_command_says_what_to_set_and_writes_nothing(recipe, tmp_path, monkeypatch, capsys):
    (tmp_path / "own.yaml").write_text(recipe.to_yaml())
    monkeypatch.chdir(tmp_path)
    measured = [Measured(1, 5 * GIB, 0.1), Measured(2, 6 * GIB, 0.1), Measured(3, 7 * GIB, 0.1)]
    monkeypatch.setattr(module, "elsewhere", lambda *_: measured)
    monkeypatch.setattr(module, "free_memory", lambda: (9 * GIB, "a test"))
    assert main(["train", "own.yaml", "--max-batch"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "limit: 7.20 GiB, 80% of the 9.00 GiB that are free (a test)",
        "memory of a step, by scenes of each domain: 1: 5.00 GiB, 2: 6.00 GiB, 3: 7.00 GiB; each further one 1.00 GiB",
        "largest batch: 3 (a step of it was taken); the recipe has 2",
        "use it with: --set data.batch=3",
    ]
    assert os.listdir(tmp_path) == ["own.yaml"]
    assert main(["train", "own.yaml", "--max-batch", "--check"]) == 2


# What memory there is


def system(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


MEMINFO = {"proc/meminfo": "MemTotal:       16000000 kB\nMemFree:         100 kB\nMemAvailable:    8000000 kB\n"}


def test_free_memory_is_what_the_system_says(tmp_path):
    assert free_memory(system(tmp_path, MEMINFO)) == (8_000_000 * 1024, "MemAvailable of /proc/meminfo")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"proc/self/cgroup": "0::/job/step\n", "sys/fs/cgroup/job/step/memory.max": "max\n",
             "sys/fs/cgroup/job/memory.max": "3000000000\n",
             "sys/fs/cgroup/job/memory.stat": "anon 1000000000\nfile 7\n"},
            (2_000_000_000, "the limit in /sys/fs/cgroup/job/memory.max"),
        ),
        (
            {"proc/self/cgroup": "5:cpu:/\n4:memory:/box\n0::/\n",
             "sys/fs/cgroup/memory/memory.limit_in_bytes": "4000000000\n"},
            (4_000_000_000, "the limit in /sys/fs/cgroup/memory/memory.limit_in_bytes"),
        ),
        (
            {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{2**62}\n"},
            (8_000_000 * 1024, "MemAvailable of /proc/meminfo"),
        ),
    ],
)  # fmt: skip
def test_a_container_may_have_less(tmp_path, files, expected):
    assert free_memory(system(tmp_path, MEMINFO | files)) == expected


def test_without_either_it_is_all_that_the_machine_has(tmp_path):
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert free_memory(tmp_path) == (memory, "all memory of this machine")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux counts it so")
def test_peak_memory_is_this_process_alone():
    ballast = bytearray(b"\1") * (300 * 2**20)  # as one who starts others may have
    code = "from segda.ground.hardware import *; print(peak_memory(torch.device('cpu')))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = processes.run([sys.executable, "-c", code], check=True, env=environment)
    own = peak_memory(torch.device("cpu"))
    assert len(ballast) + 50 * 2**20 < own
    assert int(done.stdout) < own - len(ballast) / 2

"""Where a run computes: the names of devices, and what is said where there is none."""

from __future__ import annotations

import ctypes
import os
import sys

import pytest
import torch
import torch.nn.functional as F

import processes
from conftest import small_recipe
from hostile import refused
from segda.cli.main import main
from segda.distributed import group
from segda.errors import RecipeError
from segda.ground import hardware
from segda.ground.hardware import pick_device
from small_run import write_run


@pytest.fixture
def two(monkeypatch) -> list[torch.device]:
    """A machine with two accelerators, which are never asked for anything; the device that was made the usual one."""
    made: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", made.append)
    return made


def test_one_of_several_devices_is_picked_by_its_number(two):
    assert pick_device("cuda:1") == torch.device("cuda", 1) and two == [torch.device("cuda", 1)]
    assert pick_device("cuda") == torch.device("cuda") == pick_device("auto") and len(two) == 1
    assert "this machine has cuda:0 to cuda:1" in refused(pick_device, "cuda:2", kind=RecipeError)


def test_several_processes_do_not_share_a_device_by_its_number(two, monkeypatch):
    monkeypatch.setattr(group, "world", lambda: 2)
    said = refused(group.own_device, torch.device("cuda", 1), kind=RecipeError)
    assert "--device cuda:1: is one device, and these are 2 processes; use cuda" in said


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:1"])
def test_a_device_that_is_not_there_is_refused(name, monkeypatch):
    monkeypatch.setattr(hardware.torch.cuda, "is_available", lambda: False)
    said = refused(pick_device, name, kind=RecipeError)
    assert said == f"--device {name}: this machine or this build of torch has none; use auto or cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cuda1", "cpu:0", "", "cuda:1\n"])
def test_what_is_no_device_is_refused(name, tmp_path):
    assert "unknown device" in refused(pick_device, name, kind=RecipeError)
    assert "unknown device" in refused(small_recipe(tmp_path).override, f"device={name!r}", kind=RecipeError)


class LibC:
    """What it was asked to set."""

    gnu_get_libc_version = None

    def __init__(self):
        self.set = {}

    def mallopt(self, what, value):
        self.set[what] = value
        return 1


@pytest.mark.parametrize(
    ("said", "free", "kept"), [(None, hardware.SPARE, True), ("1", hardware.SPARE, True), ("0", hardware.SPARE, False),
                               (None, hardware.SPARE - 1, False)],
)  # fmt: skip
def test_freed_memory_is_kept_where_there_is_enough_and_nobody_says_no(said, free, kept, monkeypatch):
    libc = LibC()
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda _: libc)
    monkeypatch.setattr(hardware, "free_memory", lambda: (free, "a test"))
    monkeypatch.delenv(hardware.KEEP) if said is None else monkeypatch.setenv(hardware.KEEP, said)
    assert hardware.keep_memory() == kept
    assert libc.set == ({hardware.M_MMAP_MAX: 0, hardware.M_TRIM_THRESHOLD: -1} if kept else {})


def test_another_libc_is_left_alone(monkeypatch):
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda _: object())
    monkeypatch.setenv(hardware.KEEP, "1")
    assert hardware.keep_memory() is False


HELD = """
import ctypes
import torch
from segda.ground.hardware import keep_memory
class Info(ctypes.Structure):  # of glibc's malloc.h
    _fields_ = [(name, ctypes.c_size_t) for name in
                "arena ordblks smblks hblks mapped usmblks fsmblks uordblks free keepcost".split()]
info = ctypes.CDLL(None).mallinfo2
info.restype = Info
print(keep_memory())
block = torch.ones(25 << 20)
print(info().mapped)
del block
print(info().free)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33")
def test_a_large_block_that_is_freed_stays_with_the_process():
    """By what glibc says of 100 MB: whether the kernel was asked for a block of its own, and what is free after it."""
    told = {}
    for said in ("1", "0"):
        done = processes.run([sys.executable, "-c", HELD], env=os.environ | {hardware.KEEP: said}, check=True)
        told[said] = done.stdout.split()
    kept, mapped, free = told["1"]
    assert kept == "True" and int(mapped) < 100 << 20 <= int(free)
    kept, mapped, free = told["0"]
    assert kept == "False" and int(mapped) >= 100 << 20 > int(free)


@pytest.mark.parametrize(("channels", "kernel"), [(8, 8), (16, 4), (16, 8), (16, 14), (24, 8)])
def test_bfloat16_convolutions_with_a_stride_are_right_on_any_processor(channels, kernel):
    """oneDNN's kernels for AMX are wrong by as much as the maps themselves."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, channels, 56, 70, generator=generator)
    weight = torch.randn(channels, channels, kernel, kernel, generator=generator) / (channels * kernel**2) ** 0.5
    expected = F.conv2d(image, weight, stride=kernel)
    found = F.conv2d(image.bfloat16(), weight.bfloat16(), stride=kernel).float()
    assert (found - expected).norm() < 0.02 * expected.norm()


def test_a_training_keeps_memory_before_anything_else(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(hardware, "keep_memory", lambda: asked.append(1))
    main(["list", "methods"])
    assert asked == []
    assert main(["train", "ebda_streets", "--out", "made", "--set", "nothing=1"]) == 2
    assert asked == [1]


def test_every_command_takes_a_device_by_its_number(tmp_path, monkeypatch, capsys):
    """That is, says that this machine has none."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert small_recipe(tmp_path).override("device='cuda:1'").device == "cuda:1"
    run, other = (str(write_run(tmp_path / name)) for name in ("run", "other"))
    data = ["--data", "streets:val"]
    for line in (
        ["train", "source_only_camvid", "--out", str(tmp_path / "new")],
        ["evaluate", run, *data],
        ["evaluate", run, other, *data, "--ensemble", "logits"],
        ["predict", run, *data, "--out", str(tmp_path / "out")],
        ["pseudo-label", run, *data, "--rule", "quantile", "--set", "share=0.5", "--out", str(tmp_path / "labels")],
    ):
        assert main([*line, "--device", "cuda:1"]) == 2
        assert "--device cuda:1: this machine or this build of torch has none" in capsys.readouterr().err, line

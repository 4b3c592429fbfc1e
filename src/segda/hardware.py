"""The machine a run works on: device, precision, memory, and what environment.json records of it."""

from __future__ import annotations

import os
import platform
import resource
import sys
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import torch

from segda.errors import RecipeError

# Torch looks at this when it first allocates. Maps of tens of megabytes come and go in every layer, and a page of 4 KB
# costs the kernel about as long to hand out as torch takes to fill it: with pages of 2 MB a step of EBDA with MiT-B0
# took a sixth less processor time. Linux only; a value that the environment brings along stays.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
PrecisionName = Literal["auto", "32", "bf16", "16"]


def pick_device(name: DeviceName) -> torch.device:
    """`auto` is the first of cuda, mps, cpu that this machine has; RecipeError for one that it has not."""
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device in has if has[device])
    if not has[name]:
        raise RecipeError(f"--device {name}: this machine or this build of torch has none; use auto or cpu")
    return torch.device(name)


def pick_precision(name: PrecisionName, device: torch.device) -> torch.dtype:
    """The type that networks compute in. `auto` is bf16 where the hardware multiplies it, else float32."""
    if name == "auto":
        fast = (device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)) or (
            # Without bf16 units a processor emulates them and is slower than in float32.
            device.type == "cpu" and any(torch.cpu.get_capabilities().get(f"{unit}_bf16") for unit in ("amx", "avx512"))
        )
        return torch.bfloat16 if fast else torch.float32
    if name == "16" and device.type == "cpu":
        raise RecipeError("--precision 16 needs cuda or mps; on the cpu use bf16 or 32")
    return {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}[name]


def leave_cores(workers: int) -> None:
    """Gives each loader process a core of its own, unless OMP_NUM_THREADS says how many threads there shall be.

    Threads of one operation wait for the slowest: with a loader on one of their cores, a step took ten times as long.
    """
    if "OMP_NUM_THREADS" not in os.environ and workers > 0:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) - workers))


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager:
    """The context in which networks run; nothing for float32."""
    return nullcontext() if precision is torch.float32 else torch.autocast(device.type, precision)


def peak_memory(device: torch.device) -> int:
    """Bytes: the most this process held on the device (cuda), else the most it was resident in main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def environment(device: torch.device, precision: torch.dtype) -> dict[str, object]:
    """What a reader needs to repeat a run on another machine."""
    packages = ("segda", "torch", "transformers", "numpy", "opencv-python-headless", "Pillow", "pydantic")
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
        "system": platform.platform(),
        "processor": _processor(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": str(precision).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except FileNotFoundError:  # not Linux
        names = []
    return f"{len(names)} x {names[0]}" if names else platform.processor()

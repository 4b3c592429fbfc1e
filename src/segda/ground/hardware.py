"""The machine a run works on: device, precision, memory, and what environment.json records of it."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from segda.distributed import group
from segda.errors import RecipeError
from segda.ground.choices import DeviceName, PrecisionName, unknown_device

# Torch looks at this when it first allocates. Maps of tens of megabytes come and go in every layer, and a page of 4 KB
# costs the kernel about as long to hand out as torch takes to fill it: with pages of 2 MB a step of EBDA with MiT-B0
# took a sixth less processor time. Linux only; a value that the environment brings along stays.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

# And oneDNN at this when it first computes. Its bfloat16 convolutions with a stride give wrong maps of few channels on
# processors with AMX, or end the process (seen with torch 2.13; pytorch/pytorch#169688, uxlfoundation/oneDNN#5494). Its
# kernels for the processors before those are right. Elsewhere this changes nothing; a value that is there stays.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")

KEEP = "SEGDA_KEEP_MEMORY"
"""In the environment: 0 for a process that gives memory back as it frees it."""

SPARE = 4 << 30
"""Bytes that must be free. What was kept was up to a ninth of a training of two gigabytes."""

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h."""


def pick_device(name: DeviceName) -> torch.device:
    """`auto` is the first of cuda, mps, cpu that this machine has; `cuda:1` the second of several. RecipeError for one
    that it has not, or that is none.
    """
    if wrong := unknown_device(name):
        raise RecipeError(f"--device {name}: {wrong}")
    has: dict[DeviceName, bool] = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device in has if has[device])
    kind, _, number = name.partition(":")
    if not has[kind]:
        raise RecipeError(f"--device {name}: this machine or this build of torch has none; use auto or cpu")
    device = torch.device(name)
    if number:
        count = torch.cuda.device_count()
        if int(number) >= count:
            last = "" if count == 1 else f" to cuda:{count - 1}"
            raise RecipeError(f"--device {name}: this machine has cuda:0{last}; use one of these")
        torch.cuda.set_device(device)  # what asks for no device, as pinned memory, must not take another one
    return device


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


def keep_memory() -> bool:
    """From now on this process keeps what it frees for what it asks for next; whether it does.

    glibc gives blocks of 32 MB and more back to the kernel and takes them anew in every layer, which costs the kernel a
    fifth of a training step. Nothing that is computed changes. Only for a process that trains and ends: nothing else
    gets the memory before. Not done where less than SPARE is free, where the environment says no, or by another libc.
    """
    if sys.platform != "linux" or os.environ.get(KEEP) == "0" or free_memory()[0] < SPARE:
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    return libc.mallopt(M_MMAP_MAX, 0) == 1 and libc.mallopt(M_TRIM_THRESHOLD, -1) == 1


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager:
    """The context in which networks run; nothing for float32."""
    return nullcontext() if precision is torch.float32 else torch.autocast(device.type, precision)


def peak_memory(device: torch.device) -> int:
    """Bytes: the most this process held on the device (cuda), else the most it was resident in main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # On Linux the other number begins with the peak of whoever started this process.
    own = _number(Path("/proc/self/status"), "VmHWM")
    if own is not None:
        return own * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free_memory(root: Path = Path("/")) -> tuple[int, str]:
    """Bytes of main memory that this machine can still give, and what says so: the system, or a control group (a
    container, a job of Slurm) where less is left of its limit. All of the memory where no system says what is free.

    root: the folder of proc and sys.
    """
    found = []
    if (available := _number(root / "proc/meminfo", "MemAvailable")) is not None:
        found.append((available * 1024, "MemAvailable of /proc/meminfo"))
    for folder in _control_groups(root):
        for name, used in (("memory.max", "anon"), ("memory.limit_in_bytes", "total_rss")):
            limit = _number(folder / name)
            if limit is not None:  # "max" is no number
                left = limit - (_number(folder / "memory.stat", used) or 0)
                found.append((max(0, left), f"the limit in /{(folder / name).relative_to(root)}"))
    if not found:
        found = [(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "all memory of this machine")]
    return min(found)


def _control_groups(root: Path) -> Iterator[Path]:
    """The folders of the control groups of this process's memory, its own and those above it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except FileNotFoundError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):  # the first is version 2
            base = root / "sys/fs/cgroup" / controllers
            group = base / path.lstrip("/")
            yield group
            while group != base:
                group = group.parent
                yield group


def _number(path: Path, key: str = "") -> int | None:
    """The whole number of a file of the system that begins with it, or behind `key`; None where there is none."""
    try:
        text = path.read_text()
    except OSError:
        return None
    found = re.search(rf"^{key}:?\s*(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else None


def environment(device: torch.device, precision: torch.dtype) -> dict[str, object]:
    """What a reader needs to repeat a run on another machine."""
    packages = ("segda", "torch", "transformers", "numpy", "opencv-python-headless", "Pillow", "pydantic")
    return {
        "command": command(sys.argv),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
        "system": platform.platform(),
        "processor": _processor(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": str(precision).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "processes": group.world(),
    }


SECRET = re.compile(r"token|passw|secret|credential|auth(?!or)|(api|access|private).?key", re.IGNORECASE)
"""In the name of an option, or of a setting, whose value is nobody else's business."""

KEY = re.compile(r"(hf_|gh[a-z]_|github_pat_|sk-|AKIA|xox[a-z]-|eyJ)[\w.-]{12,}|(?<=://)[^/@\s]+(?=@)")
"""What is one by its looks: a key of a service, the name and password in an address."""

HIDDEN = "***"


def command(words: Sequence[str]) -> list[str]:
    """A command as a run folder keeps it: the program without its folder, secrets hidden."""
    if not words:
        return []
    first, *rest = words
    kept, hide = [Path(first).parent.name if Path(first).name == "__main__.py" else Path(first).name], False
    for word in rest:
        name, equals, _ = word.partition("=")
        # --token X, but not --token --other
        if hide and not word.startswith("-"):
            word = HIDDEN
        elif equals and SECRET.search(name):
            word = f"{name}={HIDDEN}"
        hide = not equals and word.startswith("-") and SECRET.search(word) is not None
        kept.append(KEY.sub(HIDDEN, word))
    return kept


@cache
def _version(package: str) -> str | None:
    """Of an installed package. Kept, since Python reads all folders of packages for each."""
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

"""What many tests need: a small CamVid on disk, a small recipe, what is said, threads held down."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import processes
from forks import Forks
from segda import run as runs
from segda.data.labels.spaces import space_named
from segda.methods import METHODS
from segda.networks import NETWORKS
from segda.recipes.build import build
from segda.recipes.recipe import Recipe, parse_recipe

os.environ[processes.TESTS] = uuid4().hex

# Two test processes on two cores: more threads would only wait for each other.
torch.set_num_threads(1)

# A process of tests is no process of one training: it would grow with every test.
os.environ["SEGDA_KEEP_MEMORY"] = "0"

# But what it frees it keeps for the next test, up to a gigabyte: giving it back takes a tenth of the time of all tests.
if hasattr(LIBC := ctypes.CDLL(None), "gnu_get_libc_version"):
    M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
    for option, size in ((M_MMAP_THRESHOLD, 2**25), (M_TRIM_THRESHOLD, 2**30), (M_TOP_PAD, 2**26)):
        assert LIBC.mallopt(option, size) == 1

# A tenth of their time, too, was the collector's, which ran after each 700 objects.
gc.set_threshold(10_000, 10, 10)

# What is in tests' folders need not outlive the machine, and a disk is slow.
os.fsync = lambda _: None

FRAMES = {
    "train": (
        "0006R0_f01",
        "0006R0_f02",
        "0016E5_001",
        "Seq05VD_f01",
        "0001TP_001",
        "0001TP_002",
        "0001TP_003",
    ),
    "val": ("0016E5_101", "0016E5_102"),
    "test": ("0001TP_101", "0001TP_102", "0001TP_103"),
}

PAIRS = {"0001TP_001": "0006R0_f02", "0001TP_002": "0016E5_001", "0001TP_003": "0006R0_f01"}
"""By day and at dusk, in pairs.csv of the data root."""

RECIPE = """
seed: 3
steps: 4
data:
  batch: 2
  source:
    set: camvid:train:day
    augment: {resize: null, crop: [32, 32], max_class_share: 0.75, flip: 0.5}
  target:
    set: camvid:train:dusk
    augment: {resize: null, crop: [32, 32], max_class_share: null, flip: 0.5}
network:
  {name: mit_daformer, encoder: tiny, weights: scratch, channels: 8, dilations: [1, 3], dropout: 0.1, drop_path: 0.1}
method: {name: source_only, photometric: null}
optim:
  {name: adamw, lr: 1e-3, head_lr_factor: 1, betas: [0.9, 0.999], weight_decay: 0.01, warmup: 2, warmup_ratio: 1e-6,
   power: 1}
evaluate: {data: ["camvid:test:dusk"], resize: null, how: whole, report_images: 0}
device: cpu
precision: "32"
log_every: 1
"""
TREE = yaml.safe_load(RECIPE)
"""To be copied, not to be changed."""

PHOTOMETRIC = {"jitter_prob": 0.8, "jitter_strength": 0.2, "blur_prob": 0.5, "blur_sigma": [0.15, 1.15]}
SELF_TRAINING = {"decay": 0.9, "threshold": 0.2, "classes_of": "batch", "photometric": PHOTOMETRIC}
FEATURE_DISTANCE = {"weight": 0.005, "classes": ["car", "pole"], "min_share": 0.5}
MASKING = {"mode": "target", "block": 8, "ratio": 0.7, "weight": 1.0, "augment": True}
CAMVID = space_named("camvid-11").classes
LIT = {"name": "relit", "width": 2, "blocks": 1, "spread": 0.16, "frequencies": {
    name: 0.5 / 2**number for number, name in enumerate(CAMVID)
}}  # fmt: skip
"""What DANNet needs around a network of CamVid's classes."""

BLENDED = {
    "jitter_prob": 0.8, "jitter_strengths": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1},
    "grey_prob": 0.1, "blur_prob": 0.5, "blur_sigma": [0.15, 1.15],
}  # fmt: skip
VFM = {"teacher_mirror": True, "teacher_after": True, "source_photometric": BLENDED, "target_photometric": BLENDED}

METHOD_SETTINGS = {
    "source_only": {"photometric": PHOTOMETRIC},
    "minent": {"entropy_weight": {"main": 0.1}},
    "advent": {"adversarial_weight": {"main": 0.1}, "width": 4},
    "esl": {"adversarial_weight": {"main": 0.1}, "width": 4},
    "fda": {"beta": 0.05, "entropy_weight": {"main": 0.1}, "eta": 2.0, "entropy_after": 0},
    "dacs": SELF_TRAINING,
    "daformer": SELF_TRAINING | {"feature_distance": FEATURE_DISTANCE},
    "ebda": SELF_TRAINING | {"feature_distance": FEATURE_DISTANCE, "balance_weight": 0.1, "level": 0.4},
    "mic": SELF_TRAINING | {"feature_distance": FEATURE_DISTANCE, "masking": MASKING},
    "bdl": {"adversarial_weight": {"main": 0.1}, "width": 4},
    "cyclegan": {
        "width": 4, "blocks": 1, "upsampling": "transposed", "judge_width": 4, "pool": 6, "cycle_weight": 10,
        "identity_weight": 5, "perceptual_weight": 0, "reconstruction_weight": 0,
    },
    "ease": {
        "decay": 0.9, "floor": 2.0, "begin": 0, "classes_of": "batch", "photometric": PHOTOMETRIC,
        "source_photometric": PHOTOMETRIC, "balance": {"weight": 0.1, "level": 0.4}, "momentum": 0.9,
    },
    "dannet": {
        "adversarial_weight": 0.1, "width": 4, "spread": 0.05, "target_size": [48, 48],
        "light": {"variation": 10, "dissimilarity": 1, "exposure": 1, "target": 0.01, "source": 1},
        "static": {
            "classes": [*CAMVID[:-1]], "neighbours": "paper", "weight": 1, "level": 0.4, "day_share": 0.8,
        },
    },
    "mgcda": {"photometric": PHOTOMETRIC},
    "refign": SELF_TRAINING | {
        "feature_distance": FEATURE_DISTANCE, "gamma": 0.25, "static": ["road", "sky"], "certainty": 0.5,
        "reference_alone": 0.5,
    },
    "vfm": SELF_TRAINING | VFM | {"masking": MASKING},
    "vfm_plus": SELF_TRAINING | VFM | {
        "masking": MASKING,
        "distillation": {
            "encoder": "dinov2_tiny_reg", "weights": "scratch", "side": 28, "weight": 0.1, "photometric": PHOTOMETRIC,
        },
    },
    "source_free": {
        "decay": 0.9, "hold": 1, "selection": "class-entropy", "threshold": 2.0, "selection_momentum": 0.9,
        "photometric": PHOTOMETRIC, "augment": True, "pseudo_weight": 1, "entropy_weight": {"main": 0.1}, "eta": None,
        "diversity_weight": 0.1, "masking": MASKING, "norm": "target",
    },
}  # fmt: skip
"""Settings to build each method with, for a network with one head."""

ADAM = {"name": "adam", "lr": 1e-4, "betas": [0.9, 0.99], "power": 0.9}


LONGEST = (
    "distributed/test_ranks.py",
    "distributed/test_torchrun.py",
    "test_readme.py",
    "exporting/test_export.py",
    "distributed/test_two_hosts.py",
    "training/test_write_failures.py",
    "conformance/modern_steps.py",
    "conformance/advent_steps.py",
    "conformance/hrda.py",
    "conformance/architectures.py",
    "reporting/test_tables.py",
    "distributed/test_split.py",
    "training/test_max_batch.py",
    "exporting/test_graph.py",
    "training/test_compiling.py",
    "conformance/dannet_steps.py",
    "commands/test_train.py",
)
"""Files of twenty seconds and more of a core."""


OF_TORCH_ALONE = "{name: deeplab_v2, encoder: small, weights: scratch, multi_level: false}"
"""A small network for processes that start in earnest: to import transformers takes them three seconds of a core."""


def pytest_configure() -> None:
    """What is logged as a warning is put into words, whoever hears it: one that cannot be fails its test."""
    logging.root.addHandler(Hearer(str))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Among several processes, what takes long comes first, so that they end together."""
    if hasattr(config, "workerinput"):
        tests = Path(__file__).parent
        place = {tests / name: number for number, name in enumerate(LONGEST)}
        items.sort(key=lambda item: place.get(item.path, len(place)))


def pytest_collection_finish() -> None:
    """What was imported and collected lasts: the collector need not walk through a million objects again and again."""
    gc.freeze()


@cache
def frame(name: str) -> tuple[bytes, bytes]:
    """The files of its image and its label, 48 x 64: blocks of classes, coloured by class, darker at dusk."""
    rng = np.random.default_rng(sum(name.encode()))
    label = np.kron(rng.integers(0, 12, (6, 8)), np.ones((8, 8), int)).astype(np.uint8)
    bright = 0.3 if name.startswith("0001TP") else 1.0
    colours = np.random.default_rng(7).uniform(30, 220, (12, 3))
    image = np.clip(bright * colours[label] + rng.normal(0, 4, (*label.shape, 3)), 0, 255).astype(np.uint8)
    files = []
    for pixels in (image, label):
        Image.fromarray(pixels).save(file := BytesIO(), "png")
        files.append(file.getvalue())
    return files[0], files[1]


def write_camvid(root: Path, frames: dict[str, tuple[str, ...]] = FRAMES) -> Path:
    """Images and labels in the layout of the public release. To draw and pack them for each test took ten times as long
    as to write them.
    """
    for split, names in frames.items():
        for number, folder in enumerate((split, f"{split}annot")):
            (root / "camvid" / folder).mkdir(parents=True, exist_ok=True)
            for name in names:
                (root / "camvid" / folder / f"{name}.png").write_bytes(frame(name)[number])
    (root / "pairs.csv").write_text("".join(f"{night},{day}\n" for night, day in PAIRS.items()))
    return root


class Hearer(logging.Handler):
    """Hands each message on. What it is handed to may raise."""

    def __init__(self, hear: Callable[[str], object]):
        super().__init__()
        self.hear = hear

    def emit(self, record: logging.LogRecord) -> None:
        self.hear(record.getMessage())


@contextmanager
def hearing(hear: Callable[[str], object], least: int = logging.INFO) -> Iterator[None]:
    """A block in which somebody hears what segda says, as it is said, of this level and above."""
    log, hearer = logging.getLogger("segda"), Hearer(hear)
    level = log.level
    log.addHandler(hearer)
    log.setLevel(least)
    try:
        yield
    finally:
        log.removeHandler(hearer)
        log.setLevel(level)


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What segda says in the test."""
    lines: list[str] = []
    with hearing(lines.append):
        yield lines


@pytest.fixture
def warned() -> Iterator[list[str]]:
    """What segda warns of in the test."""
    lines: list[str] = []
    with hearing(lines.append, logging.WARNING):
        yield lines


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of the test end without their page, whose charts take longer than all their steps."""
    monkeypatch.setattr("segda.training.running.write_report", lambda run: run / "report.html")


KNOWN: list[int] = []
"""Processes that last longer than a file of tests."""


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Starts of python that import nothing."""
    with Forks() as forks:
        KNOWN.append(forks.pid)
        yield forks


@pytest.fixture(scope="module", autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Of what the tests of a file have started; some may just be ending."""
    yield
    end = time.monotonic() + 60
    while (there := processes.left(KNOWN)) and time.monotonic() < end:
        time.sleep(0.1)
    assert there == []


@pytest.fixture(autouse=True)
def logging_as_it_begins() -> None:
    """Libraries change for a whole process what is logged; each test begins as a process does.

    To set a level walks through all loggers of all libraries, so only what was changed is set.
    """
    if logging.root.manager.disable != logging.NOTSET:
        logging.disable(logging.NOTSET)
    if logging.root.level != logging.WARNING:
        logging.root.setLevel(logging.WARNING)
    for name, log in logging.root.manager.loggerDict.items():
        if name.startswith("segda") and isinstance(log, logging.Logger):
            log.disabled, log.propagate = False, True
            if log.level != logging.NOTSET:
                log.setLevel(logging.NOTSET)


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """A data root with the small CamVid."""
    return write_camvid(tmp_path / "data")


@pytest.fixture
def recipe(camvid: Path) -> Recipe:
    """Four steps of source-only on the small CamVid."""
    return small_recipe(camvid)


def around(method: str, network: dict) -> dict:
    """The spec of a network as a method takes it."""
    return LIT | {"over": network} if method == "dannet" and network["name"] != "relit" else network


def small_recipe(root: Path, method: str = "source_only", **settings) -> Recipe:
    """The small recipe with a method of METHOD_SETTINGS; one that goes on from a network has that of `write_start`."""
    tree = deepcopy(TREE)
    tree["data"]["root"] = str(root)
    tree["method"] = {"name": method, **METHOD_SETTINGS[method], **settings}
    if METHODS[method].reference == "must":
        tree["data"]["reference"] = {"set": "camvid:train:day", "pairs": str(root / "pairs.csv")}
    if METHODS[method].source == "never":
        del tree["data"]["source"]
    if METHODS[method].start == "must":
        tree["start"] = str(write_start(root))
    tree["network"] = around(method, tree["network"])
    tree["players"] = {player: ADAM for player in METHODS[method].players if player != "student"}
    if not METHODS[method].has_student():
        del tree["network"], tree["optim"]
        tree["evaluate"]["data"] = []
    return parse_recipe(tree, "small recipe")


def write_start(root: Path, spec: dict[str, Any] | None = None, name: str = "start") -> Path:
    """A file beside the data: the small recipe's network or another, random, with statistics that tell pixels apart."""
    path = root / f"{name}.safetensors"
    if not path.exists():
        spec = TREE["network"] if spec is None else spec
        torch.manual_seed(1)
        network = build(NETWORKS, spec, "network", class_names=CAMVID)
        for buffer in network.decoder.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.1, 1)
        root.mkdir(exist_ok=True)
        runs.save_network(path, network, spec, None)
    return path

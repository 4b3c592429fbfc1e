"""How many scenes a step fit in memory: `segda train RECIPE --max-batch`.

Measured on steps as the recipe takes them (its method, network, crops, precision, `activation_checkpointing`,
`accumulate`), but on noise: neither data nor their class statistics are needed, nor weights, which take as much room
whatever they are.

On cuda, memory that is not there is an error: the batch is doubled until a step fails, and halved in between. On a
processor nothing fails before the system ends something, so a few small batches are measured, in a process of its own,
and a line through the last two says how many would fit. That is an estimate, and is checked by a step of that size if
it is quick. Not counted: loader processes, and images of full size, which evaluation may look at.
"""

from __future__ import annotations

import gc
import json
import logging
import math
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from segda import errors
from segda.data.stream.settings import Augment
from segda.distributed import group
from segda.distributed.shares import Share
from segda.errors import RecipeError, RunFailure, SegdaError
from segda.ground.hardware import free_memory, keep_memory, leave_cores, peak_memory, pick_device, pick_precision
from segda.ground.trust import python, same_imports, trusted, trusting
from segda.networks.network import Network
from segda.recipes.build import starts_of
from segda.recipes.recipe import Recipe, parse_recipe
from segda.run_data import space_of
from segda.scene import Batch, Scene
from segda.training import assembly
from segda.training.optim import optimisers

log = logging.getLogger(__name__)

SHARE = {"cuda": 0.9, "cpu": 0.8}
"""Of the free memory, what a step may take: fragments grow, other programs live, and the line is an estimate."""

STEPS = 2
"""Of each batch; the first of all makes the optimisers' state."""

VISIBLE = 128 * 2**20
"""Bytes: on a processor batches grow until they take so much more than the first. Below, allocators blur the line."""

MOST = 4096
"""Scenes: nobody needs more in one step."""

CHECK_SECONDS = 30
"""An estimate is checked where that takes no longer."""

LARGE = 64
"""Scenes: batches that are measured to find the line grow no further."""


@dataclass(frozen=True)
class Measured:
    """A batch, the peak memory of a step of it in bytes, and the seconds of such a step; None where it did not fit."""

    batch: int
    memory: int | None
    seconds: float = 0.0


@dataclass(frozen=True)
class Found:
    """The largest batch that fits within `limit` bytes; `checked` when a step of it was taken."""

    batch: int
    limit: int
    checked: bool
    measured: tuple[Measured, ...]


def find_max_batch(recipe: Recipe) -> Found:
    """The largest `data.batch` of this recipe on this machine. RunFailure where not even the least fits."""
    if group.world() > 1:
        raise RecipeError("--max-batch measures one process; leave out torchrun: each process takes data.batch scenes")
    if recipe.shard:
        raise RecipeError(
            "--max-batch measures one process, which would hold all weights; leave out shard, or try batches with "
            "--check under torchrun"
        )
    device = pick_device(recipe.device)
    for domain, settings in augments(recipe).items():
        size(settings, domain)
    if device.type == "cuda":
        found = by_trying(recipe, device)
    elif device.type == "cpu":
        found = by_measuring(recipe)
    else:
        raise RecipeError(f"--max-batch measures cuda and cpu, not {device.type}; try batches with --check")
    tell(found, recipe)
    return found


def tell(found: Found, recipe: Recipe) -> None:
    """What was found, and how to use it."""
    steps = [f"{one.batch}: {gib(one.memory)}" for one in found.measured if one.memory is not None]
    further = slope(found.measured)
    more = f"; each further one {gib(further)}" if further > 0 else ""
    log.info(f"memory of a step, by scenes of each domain: {', '.join(steps)}{more}")
    what = "a step of it was taken" if found.checked else "an estimate by the last two of these; none of it was taken"
    reached = f"; more than {MOST} were not looked at" if found.batch >= MOST else ""
    log.info(f"largest batch: {found.batch} ({what}{reached}); the recipe has {recipe.data.batch}")
    log.info(f"use it with: --set data.batch={found.batch}")


# On cuda


def by_trying(recipe: Recipe, device: torch.device) -> Found:
    """Steps in this process, until memory is out."""
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    limit = int(SHARE["cuda"] * (free + torch.cuda.memory_reserved(device)))
    log.info(f"limit: {gib(limit)}, {SHARE['cuda']:.0%} of what is free of the device's {gib(total)}")
    # Of the current device: unlike its likes, this function takes no device without a number.
    torch.cuda.set_per_process_memory_fraction(limit / total)
    try:
        try:
            trial = Trial(recipe)
        except torch.OutOfMemoryError as error:
            raise too_large(recipe, 1, limit) from error
        batch, measured = search(trial)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    if batch == 0:
        raise too_large(recipe, trial.least, limit)
    return Found(batch, limit, True, measured)


def search(trial: Trial) -> tuple[int, tuple[Measured, ...]]:
    """The largest batch whose steps do not run out of memory, or 0; and what was measured, by batch."""
    measured: dict[int, Measured] = {}

    def fits(batch: int) -> bool:
        measured[batch] = trial(batch)
        return measured[batch].memory is not None

    batch = largest(fits, trial.least)
    return batch, tuple(measured[key] for key in sorted(measured))


def largest(fits: Callable[[int], bool], least: int, most: int = MOST) -> int:
    """The largest number from `least` to `most` that fits, where none fits above one that does not; 0 if none does."""
    good, bad = 0, most + 1
    attempt = least
    while good + 1 < bad and attempt < bad:
        if fits(attempt):
            good = attempt
            attempt = min(2 * good, most) if bad > most else (good + bad) // 2
        else:
            bad = attempt
            attempt = (good + bad) // 2 if good else bad
    return good


class Trial:
    """A training without data, whose steps see noise; its call measures a batch."""

    def __init__(self, recipe: Recipe):
        device = pick_device(recipe.device)
        precision = pick_precision(recipe.precision, device)
        leave_cores(recipe.data.workers)
        # Networks that the method holds beside the student begin at random as well: as VFM-UDA++'s frozen encoder.
        unread = recipe.override(*(f"{key}=scratch" for key in starts_of(recipe.method, "method")))
        method = assembly.build_method(unread, space_of(recipe), fresh=False).to(device)
        scaler = torch.amp.GradScaler(device.type, enabled=precision is torch.float16)
        players = optimisers(method, assembly.settings_of(recipe))
        self.training = assembly.Training(recipe, method, players, scaler, None, [], device, precision)
        self.least = max((each.least_images for each in method.modules() if isinstance(each, Network)), default=1)

    def __call__(self, batch: int) -> Measured:
        """Steps with so many scenes of each domain."""
        training, recipe = self.training, self.training.recipe
        accelerated = training.device.type == "cuda"
        if accelerated:
            torch.cuda.reset_peak_memory_stats(training.device)
        # Where self-training begins later, the steps before are the smaller ones.
        training.t = max(0, min(recipe.method.get("begin", 0), recipe.steps - STEPS))  # beyond the end are no rates
        count, noise = recipe.accumulate, self.noise(batch)
        scenes = [noise.replace(share=Share(first_scene=i * batch, count=count)) for i in range(count)]
        seconds = math.inf
        try:
            for _ in range(STEPS):
                begin = time.monotonic()
                training.step(scenes)
                if accelerated:
                    torch.cuda.synchronize(training.device)
                seconds = min(seconds, time.monotonic() - begin)
            return Measured(batch, peak_memory(training.device), seconds)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            # The graph lives as long as the error does; room is made after it.
            return Measured(batch, None)
        finally:
            for optimiser in training.optimisers.values():
                optimiser.zero_grad(set_to_none=True)
            if accelerated:
                gc.collect()
                torch.cuda.empty_cache()

    def noise(self, batch: int) -> Batch:
        """Scenes such as the loader gives, of random colours and classes."""
        recipe, generator = self.training.recipe, torch.Generator().manual_seed(0)
        told = recipe.data.reference
        classes = len(space_of(recipe).classes)

        def scene(settings: Augment, domain: str, labelled: bool) -> Scene:
            shape = (batch, *size(settings, domain))
            image = torch.randint(0, 256, (batch, 3, *shape[1:]), generator=generator, dtype=torch.uint8)
            label = torch.randint(0, classes, shape, generator=generator, dtype=torch.uint8) if labelled else None
            weight = torch.ones(shape) if settings.weighs else None
            return Scene(image, label, weight, ("noise",) * batch)

        learns = self.training.method.target_labels == "must" or recipe.data.target.labels is not None
        labelled = {"source": True, "target": learns}
        scenes = {domain: scene(settings, domain, labelled[domain]) for domain, settings in augments(recipe).items()}
        reference = None if told is None else scene(augments(recipe)[told.of], told.of, False)
        styled = self.training.method.style and learns
        style = scene(augments(recipe)["target"], "target", False) if styled else None
        return Batch(scenes.get("source"), scenes["target"], reference=reference, style=style)


def out_of_memory(error: Exception) -> bool:
    """Also on a processor, whose allocator has no error of its own."""
    said = ("can't allocate memory", "std::bad_alloc")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(words in str(error) for words in said)


def augments(recipe: Recipe) -> dict[str, Augment]:
    """The settings of the domains that are drawn from; a reference goes by those of its image."""
    source = {} if recipe.data.source is None else {"source": recipe.data.source.augment}
    return source | {"target": recipe.data.target.augment}


def size(settings: Augment, domain: str) -> tuple[int, int]:
    """(height, width) of a scene; without a crop, of the box that it is brought to, which it does not exceed."""
    if settings.size is not None:
        return settings.size
    if settings.resize is not None and settings.scale is None:
        return settings.resize[1], settings.resize[0]
    raise RecipeError(
        f"data.{domain}.augment: without crop and resize, scenes are as large as the images, which --max-batch does "
        "not open; set one of them"
    )


# On a processor


def by_measuring(recipe: Recipe) -> Found:
    """Small batches in another process, and a line."""
    free, where = free_memory()
    limit = int(SHARE["cpu"] * free)
    log.info(f"limit: {gib(limit)}, {SHARE['cpu']:.0%} of the {gib(free)} that are free ({where})")
    measured = elsewhere(recipe, None, free)
    if not fitting(measured, limit):
        raise too_large(recipe, measured[0].batch, limit)
    while True:
        batch = estimate(measured, limit)
        if any(one.batch == batch for one in measured):
            return Found(batch, limit, True, tuple(measured))
        last = fitting(measured, limit)[-1]
        if STEPS * last.seconds / last.batch * batch > CHECK_SECONDS:
            return Found(batch, limit, False, tuple(measured))
        log.info(f"estimate: {batch}; a step of it makes sure")
        (checked,) = elsewhere(recipe, batch, free)
        measured = sorted([*measured, checked], key=lambda one: one.batch)
        if fitting([checked], limit):
            return Found(batch, limit, True, tuple(measured))


def estimate(measured: Sequence[Measured], limit: int) -> int:
    """The largest batch whose memory, by the line through the last two that were measured, is within the limit; no less
    than one that was seen to be, no more than one that was seen not to be.

    Not by a line through all: at the smallest batches weights and optimisers may take more room than maps do.
    """
    last = fitting(measured, limit)[-1]
    assert last.memory is not None
    further = slope(measured)
    room = int((limit - last.memory) // further) if further > 0 else MOST
    return min(last.batch + room, *(one.batch - 1 for one in measured if one.batch > last.batch), MOST)


def fitting(measured: Sequence[Measured], limit: int) -> list[Measured]:
    return [one for one in measured if one.memory is not None and one.memory <= limit]


def slope(measured: Sequence[Measured]) -> float:
    """Bytes of a further scene, by the last two whose memory is known; 0 where there is one only."""
    known = [(one.batch, one.memory) for one in measured if one.memory is not None]
    if len(known) < 2:
        return 0.0
    (fewer, less), (more, most) = known[-2:]
    return (most - less) / (more - fewer)


MARK = "measured: "
"""What begins the lines that another process says to this one."""


def elsewhere(recipe: Recipe, batch: int | None, most: int) -> list[Measured]:
    """What another process measures: a batch, or growing ones from the least. The last one may not fit in `most`."""
    request = {"recipe": recipe.model_dump(mode="json"), "batch": batch, "most": most, "trust": trusted()}
    done = subprocess.run(
        python("-c", "from segda.training.max_batch import answer; answer()"), input=json.dumps(request),
        env=same_imports(), capture_output=True, text=True,
    )  # fmt: skip
    told = [json.loads(line.removeprefix(MARK)) for line in done.stdout.splitlines() if line.startswith(MARK)]
    if told and "error" in told[-1]:
        raise getattr(errors, told[-1]["error"])(told[-1]["message"])
    measured = [Measured(**one) for one in told]
    if done.returncode == -signal.SIGKILL:  # by a system without memory
        return [*measured, Measured(batch or (2 * measured[-1].batch if measured else 1), None)]
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RunFailure(f"--max-batch: a step in another process failed ({reason}); see whether --check says more")
    return measured


def answer() -> None:
    """The other process: a request on standard input, a line for each batch."""
    request = json.load(sys.stdin)

    def tell(**said: Any) -> None:
        print(f"{MARK}{json.dumps(said)}", flush=True)

    keep_memory()  # as a training does
    # So that an allocation fails here before the system ends a process, which may be any.
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (request["most"], hard))
    try:
        with trusting(request["trust"]):
            trial = Trial(parse_recipe(request["recipe"], "recipe"))
        batches = iter([request["batch"]] if request["batch"] else (trial.least * 2**k for k in range(MOST)))
        least = None
        for number, batch in enumerate(batches, 1):
            one = trial(batch)
            tell(**asdict(one))
            if one.memory is None or batch >= LARGE:
                return
            least = one.memory if least is None else least
            if number >= 3 and one.memory - least >= VISIBLE:
                return
    except SegdaError as error:
        tell(error=type(error).__name__, message=str(error))


def too_large(recipe: Recipe, least: int, limit: int) -> RunFailure:
    """What is said where not even the smallest step fits."""
    settings = augments(recipe)
    first = next(iter(settings))
    height, width = size(settings[first], first)
    ways = [] if recipe.activation_checkpointing else ["activation_checkpointing: true"]
    ways += ["a smaller " + " and ".join(f"data.{domain}.augment.crop" for domain in settings), "precision: bf16"]
    return RunFailure(
        f"--max-batch: a step with {least} of each domain's scenes ({height} x {width}) does not fit in {gib(limit)}; "
        f"set {', '.join(ways)} or a smaller network.encoder"
    )


def gib(number: float) -> str:
    """Bytes, as people say it."""
    return f"{number / 2**30:.2f} GiB" if number >= 2**28 else f"{number / 2**20:.1f} MiB"

"""What `segda train RECIPE --max-batch` says on devices of 12, 24 and 80 GB, played on a processor.

    python benchmarks/device_memory.py [--only WORD ...] [--json NAME] [--tiny]

Steps of the papers' recipes at their own size, on tensors that have shapes and no numbers (torch's FakeTensorMode): a
row takes about a minute of a core, and next to no memory. What is counted is what tensors hold at most, weights,
gradients and the optimiser's state among them, as `torch.cuda.max_memory_allocated` counts it. Not counted: what
kernels need for themselves, and gaps between blocks. The largest batch is by the line through the steps of one and of
two scenes, within the share of the device that --max-batch leaves to a step.

--only: the rows whose names hold a word. --json writes docs/results/raw/NAME.json as well. --tiny: for tests.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from segda import scene
from segda.ground.hardware import environment, pick_device, pick_precision
from segda.networks.hrda import HRDA, box_in
from segda.recipes.recipe import Recipe, load_recipe
from segda.run_data import space_of
from segda.training import max_batch, step
from segda.training.max_batch import SHARE, Measured, Trial, estimate, slope
from steps import scratch

RAW = Path(__file__).parents[1] / "docs" / "results" / "raw"
GIB = 2**30
DEVICES = (12, 24, 80)
"""GB on the box, which are GiB within a percent or two."""

AGAIN = "activation_checkpointing=true"
RECIPES = {
    "MIC on DAFormer, MiT-B5": "mic_daformer_gta5_cityscapes",
    "HRDA, MiT-B5": "hrda_gta5_cityscapes",
    "MIC on HRDA, MiT-B5": "mic_gta5_cityscapes",
    "EBDA + MIC on HRDA, MiT-B5": "ebda_mic_gta5_cityscapes",
    "VFM-UDA, DINOv2-L": "vfm_dinov2_gta5_cityscapes",
    "VFM-UDA, DINOv3-L": "vfm_dinov3_gta5_cityscapes",
    "VFM-UDA++, DINOv2-L": "vfm_plus_dinov2_gta5_cityscapes",
}
ROWS: dict[str, tuple[str, tuple[str, ...]]] = {
    **{name: (recipe, ()) for name, recipe in RECIPES.items()},
    "MIC on HRDA, MiT-B5, all windows at once": ("mic_gta5_cityscapes", ("network.window_batch=null",)),
    **{f"{name}, again": (recipe, (AGAIN,)) for name, recipe in RECIPES.items()},
}
"""Name -> a recipe as it is shipped, and what is changed of it."""


class Held(TorchDispatchMode):
    """How many bytes the tensors that were made inside hold, now and at most; a storage counts once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), settings: Any = None) -> Any:
        if function is torch.ops.prim.device.default:  # two calls of three
            return arguments[0].fake_device
        made = function(*arguments, **(settings or {}))
        for each in tree_leaves(made):
            if isinstance(each, Tensor) and (storage := each.untyped_storage()) not in self.seen:
                self.seen.add(storage)
                self.change(storage.nbytes())
                weakref.finalize(storage, self.change, -storage.nbytes())
        return made

    def change(self, by: int) -> None:
        self.now += by
        self.most = max(self.most, self.now)

    def peak(self, device: torch.device) -> int:
        """In the place of `peak_memory`; the next one begins here."""
        most, self.most = self.most, self.now
        return most


def copied(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    """`Tensor.__deepcopy__`, which copies storages otherwise, of which these have none."""
    made = tensor.detach().clone()
    memo[id(tensor)] = (
        torch.nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else made
    )
    return memo[id(tensor)]


@contextmanager
def played(classes: int) -> Iterator[None]:
    """Inside, tensors have no numbers, and `Trial` says what they hold. What a step asks of numbers has an answer that
    costs the most: every image has all classes.
    """
    held = Held()
    answers = (
        (scene, "present", lambda label: (tuple(range(classes)),) * len(label)),
        (HRDA, "draw", lambda self, size: box_in(size, self.box, self.grid, lambda count: count - 1)),
        (step, "finite", lambda log: True),
        (Tensor, "__deepcopy__", copied),
        (torch.nn.init, "trunc_normal_", lambda tensor, *_, **__: tensor),
        (torch.nn.Module, "to", lambda self, *_, **__: self),  # all is there
        (max_batch, "peak_memory", held.peak),
    )
    with ExitStack() as stack:
        for owner, name, answer in answers:
            stack.enter_context(patch.object(owner, name, answer))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(held)
        yield


def measured(recipe: Recipe) -> list[Measured]:
    """Steps of the fewest scenes and of one more."""
    with played(len(space_of(recipe).classes)):
        trial = Trial(recipe)
        with_state(trial.training.optimisers.values())
        with patch.object(max_batch, "STEPS", 1):
            return [trial(batch) for batch in (trial.least, trial.least + 1)]


def with_state(optimisers: Iterable[torch.optim.Optimizer]) -> None:
    """As after their first step, so that one more says what a step holds."""
    for optimiser in optimisers:
        for weight in (weight for group in optimiser.param_groups for weight in group["params"]):
            weight.grad = torch.zeros_like(weight)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


def recipe_of(name: str, tiny: bool) -> Recipe:
    # In one type on every machine: bfloat16, as `precision: auto` takes on a GPU that has it.
    chosen, changes = ROWS[name]
    recipe = scratch(load_recipe(chosen).override("precision=bf16", *changes))
    if not tiny:
        return recipe
    small = ["data.source.augment.crop=[64, 64]", "data.target.augment.crop=[64, 64]"]
    encoder = {"hrda": "over.encoder=tiny", "vfm": f"encoder={recipe.network.get('encoder', '')[:6]}_tiny"}
    small.append(f"network.{encoder.get(recipe.network['name'], 'encoder=tiny')}")
    if recipe.network["name"] == "hrda":
        small.append("network.box=[32, 32]")
    if "distillation" in recipe.method:
        small.append("method.distillation.encoder=dinov2_tiny_reg")
    if recipe.method.get("masking", {}).get("block"):
        small.append("method.masking.block=16")
    return recipe.override(*small)


def largest(steps: list[Measured], size: int) -> int:
    """The largest batch on a device of so many GiB; 0 where the first step does not fit."""
    limit = int(SHARE["cuda"] * size * GIB)
    first = steps[0].memory
    assert first is not None
    return estimate(steps, limit) if first <= limit else 0


def line(name: str, recipe: Recipe, steps: list[Measured]) -> str:
    first, further = steps[0], slope(steps)
    assert first.memory is not None
    shipped = first.memory + (recipe.data.batch - first.batch) * further
    fits = [str(largest(steps, size)) for size in DEVICES]
    sizes = [f"{number / GIB:.1f}" for number in (first.memory, further, shipped)]
    return f"| {name} | {' | '.join([*sizes[:2], str(recipe.data.batch), sizes[2], *fits])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--json", metavar="NAME")
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    print(f"| GiB | a scene | a further one | batch | all | {' | '.join(f'{size} GB' for size in DEVICES)} |")
    print("|---|---:|---:|---:|---:|" + "---:|" * len(DEVICES), flush=True)
    found = {}
    for name in ROWS:
        if asked.only and not any(word in name for word in asked.only):
            continue
        begin, recipe = time.monotonic(), recipe_of(name, asked.tiny)
        steps = measured(recipe)
        print(line(name, recipe, steps), flush=True)
        print(f"{name}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
        found[name] = {"recipe": recipe.name, "changes": ROWS[name][1], "batch": recipe.data.batch} | {
            "bytes": {one.batch: one.memory for one in steps}
        }
    if asked.json:
        facts = environment(pick_device("cpu"), pick_precision("auto", torch.device("cpu")))
        told = {"machine": facts, "rows": found}
        (RAW / f"{asked.json}.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What this machine can do at most, and what part of it segda reaches: one table, of one run on a quiet machine.

    python benchmarks/all.py --table [--steps 3] [--json NAME] [--only WORD ...] [--tiny]

First the peaks: convolutions, matrix products, a copy. Then each row in a process of its own, as `segda train` runs it:
whole steps of the papers' recipes at their own size, on noise, as shipped and with fewer passes; evaluation; labels;
one item of the data; steps of the recipes of rendered streets. Weights are random. A share is of the larger of both
peaks of the row's type: operations of convolutions, matrix products and attentions, backward passes too, as torch
counts them, over the seconds. Nobody's code but ours runs. Steps and images are counted once before, which warms up;
no step begins MOST seconds after the first one. All rows take about 14 minutes on two cores of an AMD EPYC.

--json writes all to docs/results/raw/NAME.json as well. --only: the rows whose names hold a word. --tiny: for tests.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.nn import functional as F

import pseudo_label as labels
import steps as measure
from parts import SPACE, loading, write_pairs
from segda.data.sets.datasets import open_data
from segda.evaluation import look
from segda.evaluation.inference import views
from segda.evaluation.measure import evaluate_network
from segda.ground.hardware import autocast, environment, keep_memory, peak_memory, pick_device, pick_precision
from segda.networks import NETWORKS
from segda.networks.network import Network
from segda.recipes.blocks import shipped
from segda.recipes.build import build
from segda.recipes.recipe import Recipe, load_recipe, stages_of

RAW = Path(__file__).parents[1] / "docs" / "results" / "raw"
CPU = torch.device("cpu")
MOST = 40.0


def crops(side: int) -> tuple[str, ...]:
    """Changes of a recipe: crops of that size, of images that are as much larger."""
    sizes = {"crop": f"[{side}, {side}]", "resize": f"[{2 * side}, {side}]"}
    return tuple(f"data.{one}.augment.{key}={size}" for one in ("source", "target") for key, size in sizes.items())


@dataclass(frozen=True)
class Row:
    """A recipe as it is shipped, what is changed of it, and an encoder that takes no time, for tests."""

    recipe: str
    changes: tuple[str, ...] = ()
    tiny: str = "tiny"

    def of_its(self, *small: str) -> Recipe:
        """The recipe from random weights; small: more changes, for tests."""
        encoder = [f"network.encoder={self.tiny}"] if small else []
        return measure.scratch(load_recipe(self.recipe).override(*self.changes, *small, *encoder))


B0 = "network.encoder=b0"
ONE_PASS = "method.second_pass=false"

STEPS = {
    "AdvEnt, DeepLab-v2 101": Row("advent_gta5_cityscapes", tiny="small"),
    "AdvEnt, DeepLab-v2 101, float32": Row("advent_gta5_cityscapes", ("precision='32'",), "small"),
    "EBDA, MiT-B0": Row("ebda_gta5_cityscapes", (B0,)),
    "EBDA, MiT-B0, one pass": Row("ebda_gta5_cityscapes", (B0, ONE_PASS)),
    "EBDA, MiT-B0, one pass, 768x768": Row("ebda_gta5_cityscapes", (B0, ONE_PASS, *crops(768))),
    "EBDA, MiT-B0, one pass, 1024x1024": Row("ebda_gta5_cityscapes", (B0, ONE_PASS, *crops(1024))),
    "EBDA, MiT-B5": Row("ebda_gta5_cityscapes"),
    "EBDA, MiT-B5, one pass": Row("ebda_gta5_cityscapes", (ONE_PASS,)),
}
"""Whole steps."""

EVALUATIONS = {
    "evaluation, DeepLab-v2 101": Row("advent_gta5_cityscapes", tiny="small"),
    "evaluation, MiT-B0": Row("daformer_gta5_cityscapes", (B0,)),
    "evaluation, MiT-B0, 4096x2048": Row("daformer_gta5_cityscapes", (B0, "evaluate.resize=[4096, 2048]")),
}
"""The recipe's network and way to look."""

LABELS, ITEM = "pseudo-labels, DeepLab-v2 101", "an item with rare classes"
STREETS = tuple(sorted(name for name in shipped() if name.endswith("_streets")))
ROWS = (*STEPS, *EVALUATIONS, LABELS, ITEM, *STREETS)

TINY = (
    "data.batch=1", "data.source.augment.crop=[80, 80]", "data.target.augment.crop=[80, 80]",
    "data.target.augment.ignore_top=0", "data.target.augment.ignore_bottom=0",
)  # fmt: skip


# Peaks


def quickest(action: Callable[[], object], times: int) -> float:
    """Seconds; a first call is not counted."""
    action()
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def peaks(tiny: bool) -> dict[str, float]:
    """GFLOP/s of convolutions (3 x 3, 256 channels) and matrix products, GB/s that a copy reads and writes."""
    side, wide, times = (16, 128, 1) if tiny else (128, 2048, 7)
    channels = 32 if tiny else 256
    found = {}
    with torch.no_grad():
        for kind, name in ((torch.bfloat16, "bf16"), (torch.float32, "32")):
            for laid, words in ((torch.channels_last, "channels last"), (torch.contiguous_format, "channels first")):
                image = torch.rand(2, channels, side, side).to(kind).contiguous(memory_format=laid)
                weight = torch.rand(channels, channels, 3, 3).to(kind).contiguous(memory_format=laid)
                work = 2 * 2 * side * side * channels * channels * 9
                action = partial(F.conv2d, image, weight, padding=1)
                found[f"convolution, {name}, {words}"] = work / quickest(action, times) / 1e9
            one, other = (torch.rand(wide, wide).to(kind) for _ in range(2))
            found[f"matrix product, {name}"] = 2 * wide**3 / quickest(partial(torch.mm, one, other), times) / 1e9
        given, taken = (torch.rand(2**14 if tiny else 2**27) for _ in range(2))
        found["copy"] = 2 * given.nbytes / quickest(partial(taken.copy_, given), times) / 1e9
    return found


def peak_of(precision: str, found: dict[str, float]) -> float:
    name = "bf16" if precision == "bfloat16" else "32"
    return max(value for key, value in found.items() if f", {name}" in key)


# Rows


def training(recipe: Recipe, count: int) -> dict[str, Any]:
    """Whole steps on noise."""
    made, batches = measure.noise(recipe)
    work = measure.flops(lambda: made.step(next(batches)))  # warms up as well
    found = asdict(measure.timed(made, batches, 0, count, MOST))
    del found["waiting"]  # for nothing
    return found | {"flops": work, "precision": precision_of(made.precision), "settings": settings_of(recipe)}


def precision_of(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")


def settings_of(recipe: Recipe) -> dict[str, Any]:
    source, target = recipe.data.source, recipe.data.target
    sizes = {"source": None if source is None else source.augment.size, "target": target.augment.size}
    blocks = {"network": recipe.network, "method": recipe.method}
    return {"recipe": recipe.name, "batch": recipe.data.batch, **blocks, **sizes}


def of_papers(name: str, tiny: bool) -> Recipe:
    """The recipe of a row of STEPS."""
    return STEPS[name].of_its(*(TINY if tiny else ()))


def of_streets(name: str) -> Recipe:
    """A recipe of rendered streets, or what the first of its stages trains."""
    recipe = load_recipe(name)
    if recipe.stages:
        recipe = next(stage.recipe for stage in stages_of(recipe) if stage.recipe is not None)
    return recipe


def looking(name: str, tiny: bool) -> tuple[Network, Recipe]:
    """The network of a row of EVALUATIONS, and the recipe that says how it looks."""
    recipe = EVALUATIONS[name].of_its(*(("evaluate.resize=[64, 32]",) if tiny else ()))
    torch.manual_seed(0)
    return build(NETWORKS, recipe.network, "network", class_names=SPACE.classes).eval(), recipe


def evaluation(name: str, count: int, tiny: bool) -> dict[str, Any]:
    """Images of 2048 x 1024 from files, read, looked at, enlarged and counted."""
    network, recipe = looking(name, tiny)
    settings, precision = recipe.evaluate, pick_precision("auto", CPU)
    seconds: list[float] = []

    def each(items, title, **how):
        for item in items:
            begin = time.perf_counter()
            yield item
            seconds.append(time.perf_counter() - begin)

    with tempfile.TemporaryDirectory() as folder:
        write_pairs(Path(folder), count + 1, shrink=16 if tiny else 1)
        data = open_data("cityscapes:val", Path(folder), SPACE)
        known = {"weights": "student", "step": 0, "recipe": None, "precision": "auto"}
        casting = autocast(CPU, precision)
        work = measure.flops(lambda: views(network, data.read(0).image, settings, CPU, casting))
        look.track = each
        evaluate_network(network, data, settings, CPU, casting, known)
    facts = {"network": recipe.network, "evaluate": settings.model_dump(mode="json")}
    return {"seconds": seconds[1:], "flops": work, "memory": peak_memory(CPU), "settings": facts} | {
        "precision": precision_of(precision)
    }


def labelling(count: int) -> dict[str, Any]:
    """Images of 1024 x 512 from files, until their labels are written."""
    with tempfile.TemporaryDirectory() as folder:
        place, (encoder, size, _) = Path(folder), labels.MODES["deeplab"]
        labels.write_run(place / "run", encoder)
        labels.write_images(place / f"data{count}", count, size)
        child = [sys.executable, labels.__file__, "--child", str(place), str(count)]
        told = json.loads(subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True).stdout)
    each = sum(told[part] for part in ("predict", "labels", "finish")) / count
    facts = {"images": count, "rule": "entropy-median", "encoder": encoder, "size": size}
    return {"seconds": [each], "memory": told["peak"], "precision": precision_of(pick_precision("auto", CPU))} | {
        "settings": facts
    }


def item(tiny: bool) -> dict[str, Any]:
    recipe = load_recipe("ebda_gta5_cityscapes")
    seconds = loading(recipe, count=1 if tiny else 4, shrink=4 if tiny else 1)
    facts = {"recipe": recipe.name, "processes": 1, "files": "PNG, 1914 x 1052 and 2048 x 1024"}
    return {"seconds": seconds, "memory": peak_memory(CPU), "settings": facts}


def row(name: str, count: int, tiny: bool) -> dict[str, Any]:
    """What a row holds, measured in this process."""
    if name in STEPS:
        return training(of_papers(name, tiny), count)
    if name in STREETS:
        return training(measure.scratch(of_streets(name).override(*(TINY if tiny else ()))), count)
    if name in EVALUATIONS:
        return evaluation(name, count, tiny)
    return item(tiny) if name == ITEM else labelling(count)


def elsewhere(name: str, count: int) -> dict[str, Any]:
    """A row in a process of its own, whose memory is its own."""
    command = [sys.executable, __file__, "--row", name, "--steps", str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


# The table


def table(found: dict[str, float], rows: dict[str, dict[str, Any]]) -> list[str]:
    lines = ["| at most | GFLOP/s |", "|---|---:|"]
    lines += [f"| {name} | {value:.0f} |" for name, value in found.items() if name != "copy"]
    lines += ["", f"Copy: {found['copy']:.0f} GB/s, read and written.", ""]
    titles = ("a step, an image or an item", "seconds: median (min to max)", "n", "GFLOP", "type", "share of the peak")
    lines.append(f"| {' | '.join(titles)} | system's share of processor time | GiB |")
    lines.append("|---|---:|---:|---:|---|---:|---:|---:|")
    for name, one in rows.items():
        seconds = one["seconds"]
        many = one["settings"].get("images", len(seconds))
        cells = [f"{median(seconds):.3f} ({min(seconds):.3f} to {max(seconds):.3f})", str(many)]
        work, kind = one.get("flops"), one.get("precision", "")
        cells += [f"{work / 1e9:.0f}" if work else "", kind]
        cells.append(f"{work / median(seconds) / 1e9 / peak_of(kind, found):.0%}" if work else "")
        cells += [f"{one['system']:.1%}" if "system" in one else "", f"{one['memory'] / 2**30:.2f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="measure, and print the table")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--json", metavar="NAME")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.row:
        if asked.row in {*STEPS, *STREETS}:
            keep_memory()  # as `segda train` does
        if asked.row in EVALUATIONS:
            look.keep_memory_to_look([EVALUATIONS[asked.row].of_its().evaluate])  # as `segda evaluate` does
        print(json.dumps(row(asked.row, asked.steps, tiny=False)))
        return
    if not asked.table:
        parser.error("give --table")
    facts = environment(pick_device("cpu"), pick_precision("auto", CPU))
    found = peaks(asked.tiny)
    rows = {}
    for name in ROWS:
        if not asked.only or any(word in name for word in asked.only):
            print(name, file=sys.stderr, flush=True)
            rows[name] = row(name, asked.steps, tiny=True) if asked.tiny else elsewhere(name, asked.steps)
    print("\n".join(table(found, rows)))
    print(
        f"\n`{' '.join(map(str, facts['command']))}`: {facts['processor']}, {facts['threads']} threads, torch "
        f"{facts['packages']['torch']}. Random weights; memory of the whole process."
    )
    if asked.json:
        RAW.mkdir(parents=True, exist_ok=True)
        told = {"machine": facts, "flags": torch.backends.cpu.get_cpu_capability(), "peaks": found, "rows": rows}
        (RAW / f"{asked.json}.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What a GPU computes and how fast: tests against the processor, steps of the papers' recipes, evaluation, export.

    python benchmarks/gpu.py [--device cuda] [--out FILE.md] [--seconds 450] [--tiny]        or: make gpu

Writes one page of Markdown, with device and versions. It downloads nothing: networks begin from random weights, and
images are drawn and written to files of GTA5's and Cityscapes' size, which go in the end. Steps take the crops, the
batch and the precision of their recipe. Of recipes whose data cannot be drawn so (a reference by day, pseudo-labels)
the steps see noise, and nothing is read. What does not fit into the seconds is left out, and said to be.

--tiny: other recipes, a step each, two tests: whether it would run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from xml.etree import ElementTree

import torch

import steps as measure
from parts import write_pairs
from segda.commands.evaluate import evaluate
from segda.commands.export import export
from segda.commands.train import train
from segda.errors import SegdaError
from segda.ground.hardware import environment, pick_device, pick_precision
from segda.recipes.recipe import Recipe, load_recipe, stages_of
from segda.training.max_batch import augments, size

ROOT = Path(__file__).parents[1]

TESTS = ("tests/test_gpu.py", "tests/data/test_loading.py", "tests/data/test_references.py")

RECIPES = (
    "daformer_gta5_cityscapes", "ebda_gta5_cityscapes", "advent_gta5_cityscapes", "hrda_gta5_cityscapes",
    "mic_gta5_cityscapes", "dacs_gta5_cityscapes", "source_only_gta5_cityscapes", "minent_gta5_cityscapes",
    "vfm_dinov2_gta5_cityscapes", "fda_gta5_cityscapes", "bdl_gta5_cityscapes", "esl_gta5_cityscapes",
    "cyclegan_gta5_cityscapes", "dannet_cityscapes_dark-zurich", "mgcda_cityscapes_dark-zurich",
    "vfm_plus_dinov2_gta5_cityscapes",
)  # fmt: skip
"""A paper's each; what matters most comes first."""

COMPILED = ("daformer_gta5_cityscapes", "ebda_gta5_cityscapes")
"""Again, with `compile: true`."""

TINY = ("ebda_streets", "dannet_streets")
SMALL = ("data.batch=1", "data.workers=0", "data.source.augment.crop=[64, 64]", "data.target.augment.crop=[64, 64]")

WARM, STEPS, A_ROW = 3, 10, 15.0
"""Steps that do not count, those that do, and the seconds after which no other one begins."""

IMAGES = 8


def tests(device: str, tiny: bool) -> list[str]:
    """What pytest says, as lines of the page."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.xml"
        chosen = ["-k", "itself or bf16"] if tiny else []
        command = [
            sys.executable, "-m", "pytest", "-m", "gpu", *TESTS, *chosen, "-q", "-o", "filterwarnings=default",
            "-o", "junit_logging=system-out", f"--junitxml={found}",
        ]  # fmt: skip
        # cuBLAS reads it when it begins, and sums in one order then.
        told = os.environ | {"SEGDA_TEST_DEVICE": device, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
        paths = [str(ROOT / "src"), *filter(None, [told.get("PYTHONPATH")])]
        told["PYTHONPATH"] = os.pathsep.join(paths)
        done = subprocess.run(command, cwd=ROOT, env=told, capture_output=True, text=True)
        if not found.is_file():
            return [f"not run: {(done.stderr or done.stdout).strip().splitlines()[-1]}"]
        cases = list(ElementTree.parse(found).iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    lines = [f"{len(cases) - len(failed) - len(skipped)} passed, {len(failed)} failed, {len(skipped)} skipped."]
    for case in failed:
        fault = next(child for child in case if child.tag in ("failure", "error"))
        lines.append(f"- failed: `{case.get('name')}`: {one_line(fault.get('message') or '')}")
    lines += [f"- skipped: `{case.get('name')}`: {case.find('skipped').get('message')}" for case in skipped]
    said = [line for case in cases for line in (case.findtext("system-out") or "").splitlines()]
    return [*lines, *(f"- {line}" for line in said if "not to the bit" in line)]


def one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")[:200]


def whole_recipe(name: str, device: str, tiny: bool) -> Recipe:
    """A recipe from random weights; of several stages, the first that trains its own method."""
    recipe = load_recipe(name)
    if recipe.stages:
        trained = [stage.recipe for stage in stages_of(recipe) if stage.recipe is not None]
        method = name.partition("_")[0]
        recipe = next((one for one in trained if one.method["name"] == method), trained[0])
    return measure.scratch(recipe.override(f"device={device}", *(SMALL if tiny else ())))


def row(name: str, root: Path, device: str, tiny: bool, compiled: bool) -> str:
    """A line of the table of steps."""
    recipe = whole_recipe(name, device, tiny).override(f"compile={compiled}")
    name = f"{name}, compiled" if compiled else name
    warm, count = (0, 1) if tiny else (WARM, STEPS)
    try:
        training, batches = measure.read(recipe, root, warm + count)
        files = True
    except SegdaError:  # data that are not drawn here
        training, batches = measure.noise(recipe)
        files = False
    try:
        found = measure.timed(training, batches, warm, count, A_ROW)
    finally:
        if files:
            batches.close()  # and the processes that read with it
    sides = {size(settings, domain) for domain, settings in augments(recipe).items()}
    sizes = " and ".join(f"{height} x {width}" for height, width in sorted(sides, reverse=True))
    waiting = f"{found.waiting:.0%}" if files else "noise"
    return (
        f"| {name} | {sizes} | {recipe.data.batch} | {str(training.precision).removeprefix('torch.')} | "
        f"{median(found.seconds):.3f} ({min(found.seconds):.3f} to {max(found.seconds):.3f}) | {len(found.seconds)} | "
        f"{found.memory / 2**30:.2f} | {waiting} |"
    )


def rows(names: tuple[str, ...], root: Path, device: str, tiny: bool, end: float) -> Iterator[str]:
    yield "| recipe | crop | batch | precision | seconds a step: median (min to max) | n | GiB | waiting for data |"
    yield "|---|---|---:|---|---:|---:|---:|---:|"
    for name, compiled in (*((name, False) for name in names), *((name, True) for name in COMPILED if name in names)):
        if time.monotonic() > end:
            yield f"| {name}{', compiled' * compiled} | not run: the time was up |  |  |  |  |  |  |"
            continue
        try:
            yield row(name, root, device, tiny, compiled)
        except Exception as error:  # one row that fails leaves the others
            traceback.print_exc()
            yield f"| {name} | failed: {one_line(str(error)) or type(error).__name__} |  |  |  |  |  |  |"
        if device == "cuda":
            torch.cuda.empty_cache()


def used(root: Path, place: Path, device: str, tiny: bool) -> Iterator[str]:
    """A run by the commands: trained, scored, exported."""
    name, data = (
        ("source_only_streets", "streets:val:night") if tiny else ("daformer_gta5_cityscapes", "cityscapes:val")
    )
    recipe = whole_recipe(name, device, tiny).override("steps=2", "save_every=2", "optim.warmup=1")
    begin = time.perf_counter()
    train(recipe, place / "run", root)
    yield f"- `{name}`, two steps by `segda.train`, with all that a run writes: {time.perf_counter() - begin:.1f} s"
    if not tiny:
        begin = time.perf_counter()
        reports = evaluate(place / "run", [data], root, weights=["student"], device=device)
        count = reports[0].protocol.images
        took = (time.perf_counter() - begin) / count
        yield f"- evaluation of {data}, 2048 x 1024, {count} images: {took:.2f} s an image, all included"
    for kind, file in () if tiny else (("torch", "network.pt2"), ("onnx", "network.onnx")):
        begin = time.perf_counter()
        try:
            export(place / "run", to=kind, out=place / file, data=data, root=root)
            yield f"- export to {kind}, read again and compared: {time.perf_counter() - begin:.1f} s"
        except (SegdaError, ImportError) as error:
            yield f"- export to {kind}: {one_line(str(error))}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "gpu.md")
    parser.add_argument("--seconds", type=float, default=450)
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    begun = time.monotonic()
    device = pick_device(asked.device)
    facts = environment(device, pick_precision("auto", device))
    lines = ["# On a GPU" if device.type == "cuda" else "# On the processor, to try it", ""]
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items() if version)
    lines.append(f"`{' '.join(facts['command'])}` on {facts['device']}; {facts['processor']}; {packages};")
    lines.append(f"Python {facts['python']}; CUDA {torch.version.cuda}; cuDNN {torch.backends.cudnn.version()}.")
    lines += ["", "## Tests against the processor", "", *tests(asked.device, asked.tiny)]
    with tempfile.TemporaryDirectory() as folder:
        root, end = Path(folder) / "data", begun + asked.seconds
        if not asked.tiny:
            write_pairs(root, IMAGES)
        lines += ["", "## Steps", "", "Random weights; recipes as shipped, at their own size and precision.", ""]
        for line in rows(TINY if asked.tiny else RECIPES, root, asked.device, asked.tiny, end):
            print(line, flush=True)
            lines.append(line)
        lines += ["", "## Evaluation and export", ""]
        try:
            lines += used(root, Path(folder), asked.device, asked.tiny)
        except Exception as error:  # what was measured before is written all the same
            traceback.print_exc()
            lines.append(f"- failed: {one_line(str(error))}")
    lines += ["", f"All of it took {time.monotonic() - begun:.0f} s."]
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(asked.out)
    return int(any("failed" in line and "0 failed" not in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())

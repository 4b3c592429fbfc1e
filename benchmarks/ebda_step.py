"""Seconds and memory of one iteration of EBDA and DAFormer at the papers' sizes, part by part, beside the authors' way.

    python benchmarks/ebda_step.py [ENCODER] [STEPS] [ends]     encoder b0, 3 steps after one to warm up

With `ends` only EBDA's first and last way are measured, which is enough for an encoder that takes minutes.

Each way runs in a process of its own, one after another, so that its peak memory is its own. Images are noise, labels
squares of one class, of the right size; weights are random; jitter and blur fire in every step. Loading is measured on
drawn streets of GTA5's and Cityscapes' size as PNG.

The authors' way is emulated by our code with their choices: float32; the mixed batch through the student a second time
for its entropy; attention written as two products and a softmax; the decoder with channels first and torch's dilated
depthwise convolutions; the blur as one dense two-dimensional kernel; the moving average and AdamW tensor by tensor;
memory in small pages. Not emulated: kornia's colour jitter and mmsegmentation's and mmcv's own overheads, so that the
real thing may be slower than this column. From one column of the second table to the next one choice becomes ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parts import SPACE, Clock, cell, loading
from segda.distributed.shares import Share
from segda.ground.hardware import environment, peak_memory
from segda.methods import METHODS, daformer, ebda
from segda.methods.method import Method
from segda.networks import NETWORKS
from segda.networks.decoders import daformer as decoder
from segda.parts import photometric, pseudo, self_training, teacher
from segda.recipes.build import build
from segda.recipes.recipe import load_recipe
from segda.scene import Batch, Scene
from segda.training import optim, step
from segda.training.assembly import settings_of

SIDE, BATCH = 512, 2
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Way:
    """What is ours; everything else is the authors'."""

    fused_pass: bool = False
    attention: bool = False
    decoder: bool = False
    blur: bool = False
    updates: bool = False
    bfloat16: bool = False
    huge_pages: bool = False


REASONS = {
    "authors' way": Way(),
    "one pass": Way(True),
    "attention kernel": Way(True, True),
    "channels-last decoder": Way(True, True, True),
    "separable blur": Way(True, True, True, True),
    "multi-tensor updates": Way(True, True, True, True, True),
    "bfloat16": Way(True, True, True, True, True, True),
    "large pages (ours)": Way(True, True, True, True, True, True, True),
}
"""Each has one more choice of ours than the one before."""

PARTS = (
    "EMA", "source forward", "source backward", "feature_distance", "teacher", "pseudo-label, class mix", "jitter",
    "blur", "mixed forward", "mixed backward", "balance", "entropy for the log", "optimiser",
)  # fmt: skip


def as_authors(way: Way) -> None:
    """Puts the authors' choices in the place of ours, for this process."""
    if not way.decoder:
        decoder.DilatedDepthwise.forward = nn.Conv2d.forward
        ours = decoder.embedded
        decoder.embedded = lambda embed, levels: [level.contiguous() for level in ours(embed, levels)]
    if not way.blur:
        photometric.gaussian_blur = dense_blur
    if not way.updates:
        teacher.Teacher.follow = follow_one_by_one


def dense_blur(image: Tensor, sigma: float) -> Tensor:
    """`gaussian_blur` as one convolution with the kernel's outer product, as kornia 0.5.8's filter2d."""
    kernels = []
    for side in image.shape[1:]:
        size = photometric.kernel_size(side)
        kernel = torch.exp(-((torch.arange(size) - size // 2) ** 2) / (2 * sigma**2))
        kernels.append(kernel / kernel.sum())
    weight = (kernels[0][:, None] * kernels[1]).expand(3, 1, -1, -1)
    above, left = (len(kernel) // 2 for kernel in kernels)
    padded = F.pad(image[None], (left, left, above, above), mode="reflect")
    return F.conv2d(padded, weight, groups=3)[0]


@torch.no_grad()
def follow_one_by_one(self: teacher.Teacher, student: nn.Module, t: int, share: Share) -> None:
    """`Teacher.follow` as a loop over parameters."""
    keep = min(1 - 1 / (t + 1), self.decay)
    for ours, theirs in zip(self.network.parameters(), student.parameters(), strict=True):
        ours.data[:] = keep * ours[:].data[:] + (1 - keep) * theirs[:].data[:]


class Iteration:
    """The way to do an iteration, ready to be repeated."""

    def __init__(self, name: str, encoder: str, way: Way):
        as_authors(way)
        recipe = load_recipe(f"{name}_gta5_cityscapes")
        torch.manual_seed(0)
        network = build(
            NETWORKS, recipe.network | {"weights": "scratch", "encoder": encoder}, "network", class_names=SPACE.classes
        )
        if not way.attention:
            for module in network.modules():
                if hasattr(module, "config"):
                    module.config._attn_implementation = "eager"
        always = recipe.method["photometric"] | {"jitter_prob": 1, "blur_prob": 1}
        settings = {"photometric": always} | ({"second_pass": not way.fused_pass} if name == "ebda" else {})
        self.method: Method = build(METHODS, recipe.method | settings, "method", student=network).train()
        self.players = optim.optimisers(self.method, settings_of(recipe))
        if not way.updates:
            for player in self.players.values():
                for group in player.param_groups:
                    group["fused"], group["foreach"] = False, False
        self.precision = torch.bfloat16 if way.bfloat16 else torch.float32
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)
        self.clock = Clock()
        self.watch()

    def watch(self) -> None:
        """Puts the clock around every part."""
        timed, method = self.clock.timed, self.method
        for module in (ebda, daformer, pseudo, self_training):
            for part, names in {
                "pseudo-label, class mix": ("confident_fraction", "class_mix"),
                "balance": ("entropy", "balance"),
                "entropy for the log": ("entropy_summary",),
            }.items():
                for name in names:
                    if hasattr(module, name):
                        setattr(module, name, timed(part, getattr(module, name)))
        photometric.colour_jitter = timed("jitter", photometric.colour_jitter)
        photometric.gaussian_blur = timed("blur", photometric.gaussian_blur)
        method.parts.teacher.follow = timed("EMA", method.parts.teacher.follow)
        method.parts.teacher.forward = timed("teacher", method.parts.teacher.forward)
        method.parts.feature_distance.forward = timed("feature_distance", method.parts.feature_distance.forward)
        events = method.step

        def watched(batch: Batch, t: int):
            # Of the three passes only the published EBDA has the last.
            passes = ("source", "mixed", "balance")
            steps = events(batch, t)
            for number, name in enumerate(passes):
                self.passing = name
                part = name if name == "balance" else f"{name} forward"
                terms = timed(part, lambda: next(steps, None))()
                if terms is None:
                    return
                assert number < len(passes)
                yield terms

        method.step = watched
        backward = Tensor.backward

        def measured(*arguments, **settings):
            part = "balance" if self.passing == "balance" else f"{self.passing} backward"
            timed(part, backward)(*arguments, **settings)

        Tensor.backward = measured
        for player in self.players.values():
            player.step = timed("optimiser", player.step)

    def step(self, t: int) -> dict[str, float]:
        """Seconds of each part of one iteration."""
        self.clock.spent.clear()
        batch = noise(t)
        self.clock.timed("rest", step.train_step)(self.method, [batch], t, self.players, self.scaler, self.precision)
        return dict(self.clock.spent)


def noise(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 19, (BATCH, 16, 16), generator=generator)
    label = label.repeat_interleave(SIDE // 16, 1).repeat_interleave(SIDE // 16, 2)
    source, target = (torch.rand(BATCH, 3, SIDE, SIDE, generator=generator) for _ in range(2))
    weight = torch.ones(BATCH, SIDE, SIDE)
    weight[:, :15] = weight[:, -120:] = 0
    return Batch(Scene(source, label), Scene(target, None, weight), share=Share(step=seed)).to(CPU)


def child(name: str, encoder: str, way: Way, steps: int) -> None:
    iteration = Iteration(name, encoder, way)
    seconds = [iteration.step(t) for t in range(steps + 1)]
    print(json.dumps({"seconds": seconds[1:], "memory": peak_memory(CPU), "name": name}))  # the first warms caches up


def measured(name: str, encoder: str, way: Way, steps: int) -> dict:
    command = [sys.executable, __file__, "--child", name, encoder, json.dumps(asdict(way)), str(steps)]
    pages = {"THP_MEM_ALLOC_ENABLE": str(int(way.huge_pages))}
    result = subprocess.run(command, env=os.environ | pages, stdout=subprocess.PIPE, text=True, check=True)
    print(f"{name}, {encoder}: {asdict(way)}", file=sys.stderr, flush=True)
    return json.loads(result.stdout.splitlines()[-1])


def table(results: dict[str, dict], parts: tuple[str, ...]) -> None:
    """One column for each result; times as fast: against the first column of the same method."""
    print(f"| seconds: median (min to max) | {' | '.join(results)} |")
    print("|---" * (len(results) + 1) + "|")
    for part in parts:
        times = [[seconds.get(part, 0.0) for seconds in result["seconds"]] for result in results.values()]
        print(f"| {part} | {' | '.join(cell(one) if any(one) else '-' for one in times)} |")
    totals = [[sum(seconds.values()) for seconds in result["seconds"]] for result in results.values()]
    print(f"| **iteration** | {' | '.join(cell(total) for total in totals)} |")
    base: dict[str, float] = {}
    ratios = [
        base.setdefault(result["name"], median(total)) / median(total)
        for result, total in zip(results.values(), totals, strict=True)
    ]
    print(f"| times as fast | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |")
    memory = (f"{result['memory'] / 2**30:.2f}" for result in results.values())
    print(f"| peak memory, GiB | {' | '.join(memory)} |\n", flush=True)


def main(encoder: str, steps: int, ends: bool) -> None:
    authors, *between, ours = REASONS
    reasons = {
        name: measured("ebda", encoder, way, steps) for name, way in REASONS.items() if not (ends and name in between)
    }
    results = {"EBDA, authors' way": reasons[authors], "EBDA, ours": reasons[ours]}
    if not ends:
        results["DAFormer, authors' way"] = measured("daformer", encoder, REASONS[authors], steps)
        results["DAFormer, ours"] = measured("daformer", encoder, REASONS[ours], steps)
    table(results, (*PARTS, "rest"))
    if not ends:
        table(reasons, ())
    print(f"loading a pair, rare class first, one process: {cell(loading(load_recipe('ebda_gta5_cityscapes')))} s")
    facts = environment(CPU, torch.bfloat16)
    print(
        f"\nMiT-{encoder.upper()}, decoder of 256 channels, {SIDE}x{SIDE}, batch {BATCH}, {steps} steps; "
        f"{facts['threads']} threads; {facts['processor']}; torch {facts['packages']['torch']}"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3], Way(**json.loads(sys.argv[4])), int(sys.argv[5]))
    else:
        main(
            sys.argv[1] if len(sys.argv) > 1 else "b0",
            int(sys.argv[2]) if len(sys.argv) > 2 else 3,
            "ends" in sys.argv[3:],
        )

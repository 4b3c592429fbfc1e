"""Trainings alone or under torchrun: `python tests/ranks.py DATA LABELS OUT`.

Four steps of many methods, and whole runs with weights in shards that stop and go on.

Whatever the number of processes and passes, a step has four scenes of each domain. Writes OUT/CASE-PASSES.safetensors:
all weights and buffers, and the last step's terms.
"""

from __future__ import annotations

import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import save_file

from conftest import FEATURE_DISTANCE, MASKING, small_recipe, write_start
from narrow import narrow
from segda.commands.train import train
from segda.distributed import group, sharding, sync
from segda.errors import Interrupted
from segda.recipes.recipe import Recipe
from segda.training import assembly, loop, running

STEPS, SCENES = 4, 4
"""Translators' pools are full after two steps, and EASE begins with the third."""

WITHOUT_BATCH_NORM = (
    "network={name: encoder_decoder, encoder: tiny, decoder: deeplab_v2_reduced, weights: scratch, drop_path: 0.1}"
)

PLUS = "deeplab_v3_plus"
"""A decoder without batch norm, of cells that are small enough for HRDA's boxes."""

SGD = "{name: sgd, lr: 0.05, head_lr_factor: 1, momentum: 0.9, weight_decay: 0.01, power: 1, backbone_updates: once}"
"""AdamW would make the same steps of a gradient that is too large or too small by a factor."""

METHODS = {
    "source_only": {},
    "minent": {"entropy_weight": {"main": 1.0}},
    "advent": {"adversarial_weight": {"main": 10.0}},
    "esl": {},
    "fda": {},
    "fda rounds": {"entropy_after": None},
    "dacs": {"classes_of": "image"},
    "daformer": {},
    "ebda": {"level": "auto", "level_statistic": "mean", "level_momentum": 0.9, "balance_weight": 10.0},
    "ebda quantile": {
        "level": "auto", "level_statistic": "quantile", "level_quantile": 0.6, "level_momentum": 0.9,
        "balance_as": "pixel_weight", "feature_distance": FEATURE_DISTANCE | {"classes": None, "min_share": None},
    },
    "mic": {
        "masking": MASKING | {
            "mode": "both", "masks": 2, "balance": {"weight": 0.1, "level": 0.4},
            "teacher": {"decay": 0.5, "threshold": 0.2},
        },
    },
    # Above ln C all pixels count: at a selection's border, rounding would choose between pixels that are alike. The
    # medians are followed all the same, and compared; tests/parts/test_pseudo.py has selections in shares.
    "ease": {"begin": 2, "floor": 3.0},
    "bdl": {"adversarial_weight": {"main": 10.0}},
    "cyclegan": {},
    "dannet": {"adversarial_weight": 10.0},
    "mgcda": {},
    "refign": {},
    "vfm": {},
    "vfm_plus": {},
    # As with EASE, all pixels count.
    "source_free": {"threshold": 3.0, "entropy_weight": {"main": 0.5}, "diversity_weight": 0.5},
}  # fmt: skip
"""Name, the method's first word -> its settings beside those of METHOD_SETTINGS; so large that few steps tell cases
apart.
"""

TOYS = {
    "referenced": ("method={name: 'toys:Referenced', weight: 10}", "data.reference.set=camvid:train:day"),
    "discrepancy": (
        "method={name: 'toys:Discrepancy', features: 96, rounds: 2}",
        f"players.other={SGD}",
        "players.other.lr=0.1",
    ),
    "source-free": ("method={name: 'toys:SourceFree'}", "data.source=null", "data.space=camvid-11"),
    "swapped": ("data.source.augment.swap=0.1",),
}
"""Methods with a reference for each target scene, with optimiser steps in the middle of a step, and without a source
(toys.py), and a source in the target's look -> what their recipes change."""

ALL_COUNT = {"threshold": 0.05}
"""Below a share of 1 / C: at a border, rounding would choose between pixels that are alike."""

NETWORKS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    # Its attention's dropout, its random boxes and the teacher's windows are the same whichever scenes are there.
    "hrda": ("mic", ALL_COUNT | {"masking": MASKING | {"block": 16}}, (
        f"network={{name: hrda, box: [32, 32], grid: 8, context_scale: 0.5, detail_weight: 0.3, window_batch: 2, "
        f"attention: {PLUS}, attention_dropout: 0.1, over: {{name: encoder_decoder, encoder: tiny, decoder: {PLUS}, "
        "weights: scratch, dropout: 0.1, drop_path: 0.1}}",
        "data.source.augment.crop=[64, 64]", "data.target.augment.crop=[64, 64]",
    )),
    "light": ("vfm", ALL_COUNT | {"masking": MASKING | {"of": "tokens", "block": None}}, (
        "network={name: vfm, encoder: dinov2_tiny, decoder: light, weights: scratch, enlarge: 1.1, mask_token: learnt}",
    )),
    # Batch norm, in its stem and its pyramid.
    "adapter": ("vfm_plus", ALL_COUNT | {"masking": MASKING | {"of": "inside", "block": 16}}, (
        "network={name: vfm, encoder: dinov2_tiny, decoder: adapter, weights: scratch, enlarge: 1.1}",
        "data.source.augment.crop=[64, 64]", "data.target.augment.crop=[64, 64]", "optim.lr=0.01", "steps=2",
        "sync_batchnorm=true",
    )),
}  # fmt: skip
"""Networks that draw, or that look at an image in parts -> a method's name, its settings, what its recipe changes."""

SYNCHRONISED = ("daformer", "advent")
"""Also with batch norm that sees all processes' scenes."""

IN_PASSES = (
    "cyclegan",
    "dannet",
    "referenced",
    "discrepancy",
    "esl",
    "fda rounds",
    "swapped",
    "dacs",
    "ebda quantile",
    "ease",
    "source_free",
    "advent sharded",
)
"""Also in two passes of two processes."""

SHARDED = ("ebda quantile", "discrepancy", "advent", "daformer synchronised", "hrda", "adapter")
"""Also with weights in shards."""


def recipes(data: Path, labels: Path) -> dict[str, Recipe]:
    """A case's name -> its recipe, for one process and one pass."""
    shared = ("evaluate.data=[]", f"steps={STEPS}", f"data.batch={SCENES}", f"optim={SGD}")
    made = {}
    for name, settings in METHODS.items():
        recipe = small_recipe(data, name.split()[0], **settings)
        if not recipe.network:
            players = [f"players.{player}={SGD}" for player in recipe.players]
            slow = [f"players.{player}.{key}" for player in recipe.players for key in ("lr=5e-5", "momentum=0")]
            made[name] = recipe.override(*shared[:3], *players, *slow)
            continue
        recipe = recipe.override(*shared)
        if name in ("esl", "bdl", "fda rounds"):
            recipe = recipe.override(f"data.target.labels={labels}")
        if name == "mic":
            recipe = recipe.override("optim.lr=0.005")  # or four passes a step drive it away
        made[name] = recipe.override(WITHOUT_BATCH_NORM)
        if name in SYNCHRONISED:
            made[f"{name} synchronised"] = recipe.override("sync_batchnorm=true")
    start = write_start(data, made["source_free"].network, "without-batch-norm")
    made["source_free"] = made["source_free"].override(f"start={start}", "optim.lr=1e-4")  # or all is one class
    made["dannet"] = relit(small_recipe(data, "dannet", **METHODS["dannet"])).override(
        *shared,
        "optim.lr=0.001",  # or its light collapses
    )
    for name, changes in TOYS.items():
        list_of_pairs = (f"data.reference.pairs={data / 'pairs.csv'}",) if name == "referenced" else ()
        made[name] = small_recipe(data).override(*shared, *changes, *list_of_pairs, WITHOUT_BATCH_NORM)
    for name, (method, settings, changes) in NETWORKS.items():
        made[name] = small_recipe(data, method, **settings).override(*shared, *changes)
    made |= {f"{name} sharded": made[name].override("shard=true") for name in SHARDED}
    return made | {"advent sharded": made["advent sharded"].override("activation_checkpointing=true")}


def relit(recipe: Recipe) -> Recipe:
    """A network without batch norm, but for what relights."""
    return recipe.override(WITHOUT_BATCH_NORM.replace("network=", "network.over=", 1))


def learnt(recipe: Recipe, passes: int) -> dict[str, torch.Tensor]:
    """All that a training has learnt after its steps, in so many passes a step, and its last terms."""
    scenes = SCENES // (group.world() * passes)
    recipe = recipe.override(f"data.batch={scenes}", f"accumulate={passes}")
    with narrow() if recipe.network.get("name") == "hrda" else nullcontext():
        training = assembly.assemble(recipe, recipe.data.root, None)
    if recipe.network.get("name") == "relit":  # whose batch norm no passes share: it keeps its statistics
        training.method.student.relighting.eval()
    for drawn in training.batches(recipe.steps, 0):
        terms = training.step(drawn)
    sync.compare(training.method, training.t)
    # A quantile of all scenes is no mean of the shares' quantiles.
    terms = {f"term/{name}": term for name, term in terms.items() if "/q" not in name}
    if training.sharded:
        terms["held"] = torch.tensor(held(training.method))
    state = sharding.gather_full(training.method.state_dict())
    return {name: value for name, value in (state | terms).items() if value is not None}


def held(method: torch.nn.Module) -> float:
    """The share of a method's weights that lie in this process."""
    weights = list(method.parameters())
    own = sum((weight.to_local() if sharding.is_shard(weight) else weight).numel() for weight in weights)
    return own / sum(weight.numel() for weight in weights)


def sharded_run(data: Path) -> Recipe:
    """Three steps of EBDA that are kept after the second, and saved and scored at the end."""
    settings = ("steps=3", "save_every=9", "keep_every=2", "evaluate.report_images=1", "data.batch=1")
    exact = "exact_statistics=[source, target]"
    return small_recipe(data, "ebda").override(*settings, exact, "shard=true", "sync_batchnorm=true")


WRAPPED = """network={name: "two_scales:TwoScales", detail: 0.1, over: {name: "two_scales:TwoScales", detail: 0.1, over:
{name: encoder_decoder, encoder: tiny, decoder: deeplab_v2_reduced, weights: scratch, drop_path: 0}}}"""
"""Networks inside networks, each of which halves the image."""

LARGE = ("resize=[176, 132]", "crop=[128, 128]")
"""A quarter of such a crop's side is as small as the innermost network takes."""


def whole_runs(data: Path, out: Path) -> None:
    """OUT/sharded in one go, OUT/stopped with a stop after its first step, OUT/plain without shards; OUT/wrapped and
    OUT/wrapped-sharded of networks inside networks. The first alone draws its page.
    """
    recipe = sharded_run(data)
    settings = (
        "steps=2",
        "evaluate.report_images=0",
        "data.batch=2",
        f"optim={SGD}",
        "optim.lr=0.01",
        "steps=2",
        "evaluate.data=[]",
    )
    crops = [f"data.{side}.augment.{key}" for side in ("source", "target") for key in LARGE]
    wrapped = recipe.override("exact_statistics=[]", WRAPPED, *settings, *crops)  # it has no batch norm
    train(wrapped, out / "wrapped-sharded")
    train(wrapped.override("shard=false"), out / "wrapped")
    train(recipe, out / "sharded")
    run_steps = loop.run_steps

    def stop_after_one(training: assembly.Training, run: Path, *arguments) -> None:
        stopping = arguments[-1]
        step = training.step

        def last(drawn):
            if training.t == 0 and group.rank() == 1:
                stopping.asked = signal.SIGTERM
            return step(drawn)

        training.step = last
        run_steps(training, run, *arguments)

    with patch.object(running, "write_report", str):
        train(recipe.override("shard=false", "evaluate.data=[]"), out / "plain")
        with patch.object(loop, "run_steps", stop_after_one):
            try:
                train(recipe, out / "stopped")
            except Interrupted as stop:
                assert "saved after step 1" in str(stop), stop
        train(recipe, out / "stopped", resume=True)


def main() -> None:
    data, labels, out = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    with group.joined():
        for name, recipe in recipes(data, labels).items():
            for passes in (1, 2) if name in IN_PASSES else (1,):
                found = learnt(recipe, passes)
                if group.rank() == 0:
                    save_file(
                        {key: value.clone() for key, value in found.items()}, out / f"{name}-{passes}.safetensors"
                    )
        if group.world() > 1:
            whole_runs(data, out)


if __name__ == "__main__":
    main()

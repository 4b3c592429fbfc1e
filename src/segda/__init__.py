"""segda: unsupervised domain adaptation of semantic segmentation.

    import segda

    recipe = segda.load_recipe("ebda_streets").override("steps=100")
    segda.train(recipe, out="runs/ebda")
    network = segda.load_network("runs/ebda")       # a plain nn.Module
    logits = network.infer(image)                   # (B, 3, H, W) in [0, 1] -> (B, C, H, W)

Nothing is printed. To see what a training says: `import logging; logging.basicConfig(level="INFO")`.

Names are imported when they are first used, so that `import segda` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segda.commands.adapt import adapt
    from segda.commands.compare import compare
    from segda.commands.convert import convert
    from segda.commands.draw import draw
    from segda.commands.evaluate import evaluate
    from segda.commands.export import export
    from segda.commands.init import init
    from segda.commands.predict import predict
    from segda.commands.pseudo_label import pseudo_label
    from segda.commands.report import report
    from segda.commands.select import select
    from segda.commands.sweep import sweep
    from segda.commands.train import train
    from segda.commands.translate import translate
    from segda.data.labels.spaces import SPACES
    from segda.data.rows import DATASETS
    from segda.data.sets.datasets import open_data
    from segda.errors import DataError, RecipeError, RunError, SegdaError, WeightsError
    from segda.evaluation.metrics import Report
    from segda.ground.ignore import IGNORE
    from segda.methods import METHODS
    from segda.methods.method import Method
    from segda.networks import NETWORKS
    from segda.networks.network import Head, Network, Output
    from segda.recipes.build import build
    from segda.recipes.recipe import Recipe, load_recipe
    from segda.run import load_network
    from segda.scene import Batch, Scene

_HOMES = {
    "segda.commands.adapt": ("adapt",),
    "segda.commands.compare": ("compare",),
    "segda.commands.convert": ("convert",),
    "segda.commands.draw": ("draw",),
    "segda.commands.evaluate": ("evaluate",),
    "segda.commands.export": ("export",),
    "segda.commands.init": ("init",),
    "segda.commands.predict": ("predict",),
    "segda.commands.pseudo_label": ("pseudo_label",),
    "segda.commands.report": ("report",),
    "segda.commands.select": ("select",),
    "segda.commands.sweep": ("sweep",),
    "segda.commands.train": ("train",),
    "segda.commands.translate": ("translate",),
    "segda.data.labels.spaces": ("SPACES",),
    "segda.data.rows": ("DATASETS",),
    "segda.data.sets.datasets": ("open_data",),
    "segda.errors": ("DataError", "RecipeError", "RunError", "SegdaError", "WeightsError"),
    "segda.evaluation.metrics": ("Report",),
    "segda.methods": ("METHODS",),
    "segda.methods.method": ("Method",),
    "segda.networks": ("NETWORKS",),
    "segda.networks.network": ("Head", "Network", "Output"),
    "segda.recipes.build": ("build",),
    "segda.recipes.recipe": ("Recipe", "load_recipe"),
    "segda.run": ("load_network",),
    "segda.ground.ignore": ("IGNORE",),
    "segda.scene": ("Batch", "Scene"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "DATASETS",
    "IGNORE",
    "METHODS",
    "NETWORKS",
    "SPACES",
    "Batch",
    "DataError",
    "Head",
    "Method",
    "Network",
    "Output",
    "Recipe",
    "RecipeError",
    "Report",
    "RunError",
    "Scene",
    "SegdaError",
    "WeightsError",
    "adapt",
    "build",
    "compare",
    "convert",
    "draw",
    "evaluate",
    "export",
    "init",
    "load_network",
    "load_recipe",
    "open_data",
    "predict",
    "pseudo_label",
    "report",
    "select",
    "sweep",
    "train",
    "translate",
]


def __getattr__(name: str):
    if name == "__version__":
        return import_module("importlib.metadata").version("segda")
    if name not in _HOME:
        raise AttributeError(f"module 'segda' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

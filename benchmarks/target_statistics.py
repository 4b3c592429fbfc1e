"""mIoU of runs as they are, and with batch norm's running statistics taken anew from the target's training images.

    python benchmarks/target_statistics.py RUN...

A method of ADVENT's line normalises each training image by its own statistics but is measured with running ones, which
source and target moved in turn. Here, too, no label of the target is read but those it is measured on.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from segda.data.sets.dataset import DataSet
from segda.data.sets.datasets import open_data
from segda.data.sets.labelled import open_labelled
from segda.data.stream.augment import resize
from segda.evaluation.measure import evaluate_network
from segda.ground.hardware import autocast, pick_device, pick_precision
from segda.networks.network import Network
from segda.recipes.recipe import Recipe
from segda.run import data_root, load_network, load_recipe_of, space_of


def take_statistics(network: Network, dataset: DataSet, recipe: Recipe) -> None:
    """The mean over all images of the data set, seen at the size of evaluation, two at a time."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over all that follows
        norm.train()
    look = recipe.evaluate
    with torch.no_grad():
        for i in range(0, len(dataset) - 1, 2):
            images = [resize(dataset.read(k), look.resize, look.shape, look.kernel).image for k in (i, i + 1)]
            network.infer(torch.stack(images).float() / 255)
    network.eval()


def main(runs: list[Path]) -> None:
    device = pick_device("cpu")
    casting = autocast(device, pick_precision("auto", device))
    print("| run | data | as trained | with the target's statistics |\n|---|---|---:|---:|")
    for run in runs:
        recipe = load_recipe_of(run)
        root, space = data_root(recipe, None), space_of(recipe)
        tested = open_labelled(recipe.evaluate.data[0], root, space)
        network = load_network(run)
        known = {"weights": "student", "step": None, "recipe": recipe.name, "precision": "auto"}
        before = evaluate_network(network, tested, recipe.evaluate, device, casting, known).miou
        take_statistics(network, open_data(recipe.data.target.set, root, space), recipe)
        after = evaluate_network(network, tested, recipe.evaluate, device, casting, known).miou
        print(f"| {run.name} | {tested.spec} | {100 * before:.1f} | {100 * after:.1f} |", flush=True)


if __name__ == "__main__":
    main([Path(run) for run in sys.argv[1:]])

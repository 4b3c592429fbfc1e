"""`segda convert`: checkpoints of other code bases to ours, ready to measure and to use, and ours to theirs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from segda import run as runs
from segda.errors import RecipeError, RunError, WeightsError, nearest
from segda.files import whole, write_text
from segda.hardware import environment
from segda.networks import NETWORKS
from segda.networks.checkpoints import LAYOUTS, Layout, to_theirs
from segda.networks.names import FAMILIES, to_ours
from segda.networks.network import Network
from segda.networks.resnet import RESNETS, ResNet
from segda.networks.weights import COUNTER, check, few, read, read_tensors
from segda.recipe import Recipe, build, load_recipe

OURS = "segda"
"""The name of our own style."""

PLAIN = (".pth", ".pt")
"""Endings of a state dict as torch saves it, which is what other code bases read."""


@dataclass(frozen=True)
class Converted:
    """What became of a checkpoint. Names are the given file's where they tell what was left out, else ours."""

    out: Path
    tensors: int
    """Those that were taken over."""
    left_out: tuple[str, ...]
    added: tuple[str, ...]
    """Ours that no such file has: the network's normalisation, and counters from before they were invented."""

    def lines(self) -> list[str]:
        """What to print."""
        told = [f"{self.out}: {self.tensors} tensors"]
        if self.left_out:
            told.append(f"left out {len(self.left_out)}: {', '.join(self.left_out)}")
        if self.added:
            told.append(f"added {len(self.added)} that the file does not have: {few(self.added)}")
        return told


def convert(
    given: Path | str,
    out: Path | str,
    source: str = OURS,
    target: str = OURS,
    recipe: Recipe | str | Path | None = None,
    leave_out: Sequence[str] = (),
    which: runs.Which = "student",
    overwrite: bool = False,
) -> Converted:
    """A checkpoint from the style of `source` to that of `target`; one of the two is "segda", the other in LAYOUTS.

    To ours: `out` is a run folder, which evaluate, predict and network.weights take, or a .safetensors file. `recipe`
    says which network it is, on which classes, and how it is measured; for an encoder alone it is not needed. Of a
    training's checkpoint, which may hold several networks, `which` is taken.
    From ours: `given` is a run folder (and `which` of its networks) or a .safetensors file, `out` a .pth state dict.
    Tensors that have no place there are an error, unless their names begin with one of `leave_out`. Nothing in a file
    is executed.
    """
    given, out = Path(given), Path(out)
    if (source == OURS) == (target == OURS):
        raise RecipeError(
            f"convert from {source} to {target}: one of them must be {OURS} and the other one of {', '.join(LAYOUTS)}"
        )
    layout = layout_named(target if source == OURS else source)
    if source == OURS:
        return _back(given, out, target, layout, leave_out, which, overwrite)
    if isinstance(recipe, str | Path):
        recipe = load_recipe(recipe)
    if not layout.whole:
        return _encoder(given, out, source, layout, leave_out, which, overwrite)
    if recipe is None:
        raise RecipeError("--recipe: needed to know the network, its classes and how it is measured; give a recipe")
    return _network(given, out, source, layout, recipe, leave_out, which, overwrite)


def layout_named(style: str) -> Layout:
    if style not in LAYOUTS:
        raise RecipeError(f"unknown style {style!r}{nearest(style, (OURS, *LAYOUTS))}")
    return LAYOUTS[style]


def _network(
    given: Path,
    out: Path,
    style: str,
    layout: Layout,
    recipe: Recipe,
    leave_out: Sequence[str],
    which: runs.Which,
    overwrite: bool,
) -> Converted:
    """A whole network, into a run folder or a file."""
    if recipe.network["name"] != layout.network:
        raise RecipeError(
            f"--recipe: its network is {recipe.network['name']}, but {style} checkpoints are {layout.network}; "
            "give a recipe with that network"
        )
    as_file = out.suffix == ".safetensors"
    if as_file:
        _free(out, overwrite)
    else:
        _free_for_run(out, recipe, overwrite)
    found, left_out = _translated(given, style, layout, leave_out, which)
    spec = {**recipe.network, "weights": "scratch"}
    network = build(NETWORKS, spec, "network", class_names=runs.space_of(recipe).classes)
    added = fill(network, found, layout, given)
    if as_file:
        runs.save_network(out, network, recipe.network, step=None)
    else:
        runs.begin(out, recipe)
        runs.save_network(out / runs.FILES["student"], network, recipe.network, step=None)
        facts = environment(torch.device("cpu"), torch.float32) | {"start": f"{style} checkpoint {given}"}
        write_text(out / "environment.json", json.dumps(facts, indent=2) + "\n")
    return Converted(out, len(found), left_out, added)


def _encoder(
    given: Path, out: Path, style: str, layout: Layout, leave_out: Sequence[str], which: runs.Which, overwrite: bool
) -> Converted:
    """An encoder alone, into a file that network.weights takes."""
    if out.suffix != ".safetensors":
        raise RecipeError(f"--out {out}: a file of style {style} holds an encoder alone; write a .safetensors file")
    _free(out, overwrite)
    found, left_out = _translated(given, style, layout, leave_out, which)
    family = FAMILIES[ResNet]
    tensors = {name.removeprefix("encoder."): tensor for name, tensor in found.items()}
    encoder = ResNet(family.size(tensors) or next(reversed(RESNETS)))
    check(encoder, tensors, family, given)
    added = tuple(name for name in encoder.state_dict() if name not in tensors)
    _save(out, found | {f"encoder.{name}": encoder.state_dict()[name] for name in added})
    return Converted(out, len(found), left_out, tuple(f"encoder.{name}" for name in added))


def _back(
    given: Path, out: Path, style: str, layout: Layout, leave_out: Sequence[str], which: runs.Which, overwrite: bool
) -> Converted:
    """Ours, into a state dict as their code reads it."""
    if out.suffix not in PLAIN:
        raise RecipeError(f"--out {out}: {style} code reads a state dict of torch; write a file ending in .pth")
    _free(out, overwrite)
    path = given
    if given.is_dir():
        runs.load_recipe_of(given)
        path = given / runs.FILES[which]
        if not path.is_file():
            raise WeightsError(f"{given} has no {which} ({path.name}); train it first, or choose other --weights")
    name = network_in(path)
    if name != layout.network:
        raise WeightsError(f"{path}: holds {name}, but {style} checkpoints are {layout.network}; choose another style")
    tensors = read_tensors(path)
    found, unknown = to_theirs(tensors, layout)
    # Constants of the network, which their code keeps elsewhere.
    constant = tuple(key for key in unknown if key in CONSTANTS)
    left_out = constant + _agreed([key for key in unknown if key not in CONSTANTS], leave_out, path, style)
    with whole(out) as partial:
        try:
            torch.save({key: tensor.contiguous() for key, tensor in found.items()}, partial)
        except RuntimeError as error:  # torch's own writer reports a full disk so
            raise RunError(f"cannot write {out}: {error}; free space or choose another folder") from error
    return Converted(out, len(tensors) - len(left_out), left_out, ())


CONSTANTS = ("mean", "scale", "deviation")
"""Our names of a network's normalisation, which is not learnt."""


def _translated(
    given: Path, style: str, layout: Layout, leave_out: Sequence[str], which: runs.Which
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The file's tensors by our names, and what was left out: no tensors, other networks, skipped, agreed to."""
    if not given.is_file():
        raise WeightsError(f"{given}: no such file; give a checkpoint of {style} code, or name its style with --to")
    tensors, others = read(given)
    found, unknown = to_ours(tensors, lambda key: layout.ours(key, which), given)
    if not found and which == "teacher" and any(map(layout.ours, tensors)):
        raise WeightsError(f"{given}: holds a student of style {style}, and no teacher; use --weights student")
    if not found:
        fitting = [name for name, other in LAYOUTS.items() if any(map(other.ours, tensors))]
        advice = f"they are of style {' or '.join(fitting)}" if fitting else "is it the right file?"
        raise WeightsError(f"{given}: holds nothing of style {style}; its first names are {few(tensors)}; {advice}")
    elsewhere = [key for key in unknown if layout.inside(key, which) is None]
    skipped = [key for key in unknown if layout.skipped(key, which)]
    agreed = _agreed([key for key in unknown if key not in {*elsewhere, *skipped}], leave_out, given, style)
    # Networks beside the one that is taken have thousands of tensors.
    networks = Counter(key.removeprefix("module.").split(".")[0] for key in elsewhere)
    return found, (*others, *(f"{name}.* ({count})" for name, count in networks.items()), *skipped, *agreed)


def _agreed(unknown: Sequence[str], leave_out: Sequence[str], file: Path, style: str) -> tuple[str, ...]:
    """`unknown`, if the user agreed to leave all of it out; else WeightsError."""
    refused = [key for key in unknown if not key.startswith(tuple(leave_out))]
    if refused:
        raise WeightsError(
            f"{file}: {len(refused)} tensors have no place in the other style ({style}): {few(refused)}; "
            f"is it the right file? To convert without them: --leave-out {refused[0].split('.')[0]}"
        )
    idle = [start for start in leave_out if not any(key.startswith(start) for key in unknown)]
    if idle:
        raise RecipeError(f"--leave-out {idle[0]}: nothing that has no place begins so; remove it")
    return tuple(unknown)


def fill(network: Network, found: dict[str, Tensor], layout: Layout, file: Path) -> tuple[str, ...]:
    """Loads `found` into the network; -> the names that stayed as they were: constants, counters. WeightsError when
    anything else is missing, or anything does not fit.
    """
    own = network.state_dict()
    encoder = {key.removeprefix("encoder."): value for key, value in found.items() if key.startswith("encoder.")}
    check(network.encoder, encoder, FAMILIES[type(network.encoder)], file)
    added = tuple(key for key in own if key not in found and (key in CONSTANTS or key.endswith(COUNTER)))
    theirs = {key: layout.theirs(key)[0] for key in own}
    lacking = [theirs[key] for key in own if key not in found and key not in added]
    surplus = [layout.theirs(key)[0] for key in found if key not in own]
    for what, names in (("lacks", lacking), ("has besides", surplus)):
        if names:
            raise WeightsError(
                f"{file}: is not the recipe's network: it {what} {few(names)}; give a recipe with the "
                "network that it holds, or change one with --set network.KEY=VALUE"
            )
    shapes = [key for key, tensor in found.items() if tensor.shape != own[key].shape]
    if shapes:
        key = shapes[0]
        raise WeightsError(
            f"{file}: does not fit the recipe's network of {network.classes} classes: {theirs[key]} is "
            f"{list(found[key].shape)} instead of {list(own[key].shape)}, and {len(shapes) - 1} more are not; give a "
            "recipe with the classes and the network that it was trained on"
        )
    network.load_state_dict({**found, **{key: own[key] for key in added}})
    return added


def network_in(path: Path) -> str:
    """The name of the network that a .safetensors file of ours says it holds."""
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path}: not a readable safetensors file ({error}); give a run folder or network.safetensors"
        ) from error
    if "network" not in facts:
        raise WeightsError(f"{path}: does not say which network it holds; give a run folder or its network.safetensors")
    return json.loads(facts["network"])["name"]


def _save(out: Path, tensors: dict[str, Tensor]) -> None:
    with whole(out) as partial:
        try:
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, partial, {"format": "pt"})
        except SafetensorError as error:
            raise RunError(f"cannot write {out}: {error}; free space or choose another folder") from error


def _free(out: Path, overwrite: bool) -> None:
    if out.is_dir():
        raise RunError(f"{out} is a folder; name a file")
    if out.exists() and not overwrite:
        raise RunError(f"{out} exists; use --overwrite, or another --out")


def _free_for_run(out: Path, recipe: Recipe, overwrite: bool) -> None:
    if out.suffix in PLAIN:
        raise RecipeError(f"--out {out}: our networks are kept in a run folder or a .safetensors file; name one")
    if (out / "recipe.yaml").exists() and not overwrite:
        raise RunError(f"{out} already holds a run; use --overwrite to replace it, or another --out")
    runs.check_folder(out, recipe, resume=False, overwrite=True)

"""What a training begins with, beside its encoder's own weights: the whole student, and networks of other runs.

start: WHERE             the recipe's student begins with the weights of a trained one, encoder and decoder; a network
                         around another may begin with that one's alone, and is at random itself
given: {name: WHERE}     a trained network is handed to the method, frozen

WHERE is a run, which stands for its student; a .safetensors file of ours, as RUN/teacher.safetensors, a snapshot, or
what `segda convert` wrote; and, to start from, also a checkpoint of other code or a model on the Hugging Face hub, as
far as `segda convert` can read it for the recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segda import run as runs
from segda.conversion.asked import Asked
from segda.conversion.to_ours import as_configured, fill, opened, style_of, translated
from segda.conversion.to_theirs import facts_in
from segda.errors import SegdaError, WeightsError
from segda.ground.trust import read_from
from segda.networks import NETWORKS
from segda.networks.network import Network
from segda.networks.weights.files import read_facts
from segda.networks.weights.hub import HUB_NAME, from_hub
from segda.networks.weights.layouts import LAYOUTS, relit_in
from segda.parts.given import Given
from segda.recipes.build import build, from_scratch
from segda.recipes.diff import differences
from segda.recipes.recipe import Recipe

BESIDES = ("weights", "dropout", "drop_path", "norm", "freeze", "aux_weight")
"""Settings of networks that change no weight's shape."""


@dataclass(frozen=True)
class Ours:
    """A file of ours, and what it says of the network in it."""

    file: Path
    spec: dict[str, Any]
    class_names: tuple[str, ...]


def begin_with(network: Network, recipe: Recipe) -> str:
    """Fills the student with what `start` names; a line on what came from where. WeightsError where it does not fit."""
    assert recipe.start is not None
    try:
        found = ours(recipe.start)
        if found is None:
            return _from_other_code(network, recipe)
        _refuse_other_classes(found, network.class_names)
        tensors = runs.read_tensors(found.file)
        network, spec, whose = inside(network, recipe.network, found.spec["name"])
        try:
            runs.fill(network, tensors, found.file)
        except WeightsError as error:
            different = [
                f"{key}: {there!r} there, {here!r} here"
                for key, (there, here) in differences(found.spec, spec, "network.").items()
                if key.rpartition(".")[2] not in BESIDES
            ]
            if not different:
                raise
            raise WeightsError(
                f"{found.file} holds another network than the recipe's ({'; '.join(different)}); change the recipe's, "
                "or start from another run"
            ) from error
    except SegdaError as error:
        error.args = (f"start: {error}",)
        raise
    return f"{whose}: {len(tensors)} tensors from {found.file}{_step_said(found.file)}"


def inside(network: Network, spec: Mapping[str, Any], name: str) -> tuple[Network, Mapping[str, Any], str]:
    """The network called `name` that the student wraps, with its spec, and what to call it; the student itself where it
    is the one, or wraps none.
    """
    inner, settings, place = network, spec, "student"
    while settings["name"] != name and len(inner.wrapped()) == 1:
        (wrapped,) = inner.wrapped()
        key = next((key for key, child in inner.named_children() if child is wrapped), "")
        if not isinstance(settings.get(key), Mapping):
            break
        inner, settings, place = wrapped, settings[key], f"{place}.{key}"
    if settings["name"] != name or inner is network:
        return network, spec, "student"
    return inner, settings, f"{place}, the rest at random"


def given_network(name: str, where: str, class_names: tuple[str, ...]) -> Given:
    """A trained network for a method, built from what its file says. WeightsError where it has other classes."""
    try:
        found = ours(where)
        if found is None:
            raise WeightsError(f"{where} is no run and no .safetensors file of ours; `segda convert` makes one of it")
        _refuse_other_classes(found, class_names)
        with read_from(found.file):
            spec = from_scratch(NETWORKS, found.spec, "network")
            network = build(NETWORKS, spec, "network", class_names=class_names)
        runs.fill(network, runs.read_tensors(found.file), found.file)
    except SegdaError as error:
        error.args = (f"given.{name}: {error}",)
        raise
    network.origin = f"{name}: {found.file}{_step_said(found.file)}"
    return Given(name, network)


def ours(where: str) -> Ours | None:
    """The file of ours that is meant, of a run its student; None for one of other code. WeightsError for nothing."""
    path = Path(where).expanduser()
    of_run = (path / "recipe.yaml").is_file()
    if of_run:
        path = runs.product_path(path, "student")
        if not path.is_file():
            raise WeightsError(f"{where} has no student ({path.name}); train it first, or name another file in it")
    if path.is_file():
        if not of_run and not _says_what_it_holds(path):
            return None
        spec, names = facts_in(path)
        return Ours(path, spec, tuple(names))
    if path.is_dir() or HUB_NAME.fullmatch(where):
        return None
    raise WeightsError(f"no run, file or folder {where}; give one")


def _says_what_it_holds(path: Path) -> bool:
    if path.suffix != ".safetensors":
        return False
    try:
        return "network" in read_facts(path)
    except (OSError, ValueError):
        return False  # whoever reads its tensors says what is wrong with it


def _refuse_other_classes(found: Ours, class_names: tuple[str, ...]) -> None:
    if found.class_names == class_names:
        return
    theirs, own = set(found.class_names), set(class_names)
    only = [f"only there: {', '.join(sorted(theirs - own))}"] if theirs - own else []
    only += [f"only here: {', '.join(sorted(own - theirs))}"] if own - theirs else []
    how = "; ".join(only) or "in another order"
    raise WeightsError(
        f"{found.file} knows {len(theirs)} other classes than the {len(own)} of this recipe ({how}); name a run on the "
        "same classes, or set data.space"
    )


def _from_other_code(network: Network, recipe: Recipe) -> str:
    """Through the table that `segda convert` reads checkpoints by; the recipe says which network it must be."""
    assert recipe.start is not None
    try:
        path = Path(recipe.start).expanduser()
        held = opened(path if path.exists() else from_hub(recipe.start), None, "student")
        style = style_of(held, recipe)
    except SegdaError as error:
        error.args = (str(error).removeprefix("--recipe: ").removeprefix("network.weights: "),)
        raise
    layout = LAYOUTS[style]
    if layout.encoder:
        raise WeightsError(f"{held.file} holds an encoder alone; name it in network.weights")
    found, _ = translated(held, Asked(Path(), style, "student", (), False, False))
    taken = len(found)
    network, spec, whose = inside(network, recipe.network, relit_in(recipe.network)["name"])
    found, notes = as_configured(network, spec, found, layout, held)
    fill(network, found, layout, held.file)
    return "; ".join((f"{whose}: {taken} tensors from {recipe.start} ({held.file.name}), {style} names", *notes))


def _step_said(file: Path) -> str:
    step = read_facts(file).get("step")
    return "" if step is None else f", after step {step}"

"""A run folder: what it holds, and how it is written and read without ever being half there.

recipe.yaml            the resolved recipe, itself a valid recipe
environment.json       versions, machine, command
log.jsonl              one JSON object a line: training scalars, evaluations
last.pt                everything that training needs to go on
network.safetensors    the student; teacher.safetensors the teacher, where the method has one
snapshots/             the student every `keep_every` steps, as network-0002000.safetensors
reports/*.json         evaluations, one file a data set
report.html            curves, tables and pictures
"""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from segda.data.datasets import default_root, own_space
from segda.data.labels import Space, space_named
from segda.errors import RunError, WeightsError
from segda.files import cannot_write, whole, write_text
from segda.networks import NETWORKS
from segda.networks.network import Network
from segda.recipe import Recipe, build, load_recipe

Which = Literal["student", "teacher"]
Standing = Literal["new", "unsaved", "begun", "finished"]
FILES: dict[str, str] = {"student": "network.safetensors", "teacher": "teacher.safetensors"}


def check_folder(out: Path, recipe: Recipe, *, resume: bool, overwrite: bool) -> None:
    """RunError when `out` cannot take a run of `recipe`: it holds another run, no run to resume, or something else."""
    holds_run = (out / "recipe.yaml").exists()
    if resume:
        if not (out / "last.pt").exists():
            raise RunError(f"{out} holds no checkpoint to resume from (last.pt); train without --resume")
        refuse_another_recipe(out, recipe)
    elif holds_run and not overwrite:
        raise RunError(f"{out} already holds a run; use --resume to go on, --overwrite to begin anew, or another --out")
    elif not holds_run and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} exists and is not a run of segda; choose another --out")


def standing(out: Path, recipe: Recipe) -> Standing:
    """How far the run of `recipe` in the folder `out` is; RunError where it holds another run, or something else.

    unsaved: begun, but without a checkpoint. finished: trained to the last step and, if the recipe says so, scored.
    """
    if not (out / "recipe.yaml").is_file():
        check_folder(out, recipe, resume=False, overwrite=False)
        return "new"
    refuse_another_recipe(out, recipe)
    if not (out / "last.pt").is_file():
        return "unsaved"
    trained = (out / FILES["student"]).is_file() and step_of(out) == recipe.steps
    scored = (out / "report.html").is_file() or not recipe.evaluate.data
    return "finished" if trained and scored else "begun"


def refuse_another_recipe(out: Path, recipe: Recipe) -> None:
    """RunError unless the run in `out` is of this recipe, wherever the data lie."""
    changed = _differences(without_root(load_recipe_of(out)), without_root(recipe))
    if changed:
        raise RunError(f"{out} was begun with another recipe ({'; '.join(changed)}); change it back or use a new --out")


def begin(out: Path, recipe: Recipe) -> None:
    """An empty run folder with the resolved recipe in it; an earlier run's files are removed."""
    try:
        for name in ("recipe.yaml", "log.jsonl", "last.pt", "report.html", *FILES.values()):
            (out / name).unlink(missing_ok=True)
        for name in ("reports", "snapshots"):
            if (out / name).exists():
                shutil.rmtree(out / name)
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from error
    write_text(out / "recipe.yaml", recipe.to_yaml())


def without_root(recipe: Recipe) -> dict[str, Any]:
    """The recipe's values, but for where the data lie: they may have moved."""
    tree = recipe.model_dump(mode="json")
    tree["data"].pop("root")
    return tree


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> list[str]:
    found = []
    for key in before.keys() | now.keys():
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{where}{key}.")
        elif old != new:
            found.append(f"{where}{key}: {old!r} then, {new!r} now")
    return sorted(found)


def load_recipe_of(run: Path) -> Recipe:
    """The resolved recipe of a run folder; RunError when `run` is none."""
    path = run / "recipe.yaml"
    if not path.is_file():
        raise RunError(f"{run} is not a run folder: it has no recipe.yaml; give the --out of a `segda train`")
    return load_recipe(path)


def append_log(run: Path, line: Mapping[str, Any]) -> None:
    """One JSON object as one line of log.jsonl."""
    try:
        with (run / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
    except OSError as error:
        raise cannot_write(run / "log.jsonl", error) from error


def read_log(run: Path) -> Iterator[dict[str, Any]]:
    """The lines of log.jsonl; none when there is no log yet. A last line cut short by a crash is left out."""
    path = run / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise RunError(f"{path} line {number} is not JSON; the log was edited or damaged") from error


def cut_log(run: Path, step: int) -> None:
    """Forgets the lines after `step`, which a resumed run writes again."""
    kept = [line for line in read_log(run) if line["step"] <= step]
    write_text(run / "log.jsonl", "".join(json.dumps(line) + "\n" for line in kept))


def save_checkpoint(run: Path, state: Mapping[str, Any]) -> None:
    """last.pt, whole or not at all."""
    with whole(run / "last.pt") as partial:
        try:
            torch.save(dict(state), partial)
        except RuntimeError as error:  # torch's own writer reports a full disk so
            raise RunError(f"cannot write {run / 'last.pt'}: {error}; free space or choose another folder") from error


def load_checkpoint(run: Path) -> dict[str, Any]:
    """last.pt, read as plain tensors and numbers; nothing in it is executed. WeightsError when it is not whole."""
    path = run / "last.pt"
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{path} is no whole checkpoint of segda and was not run: {reason}; train anew with --overwrite"
        ) from error


def save_network(path: Path, network: Network, network_spec: Mapping[str, Any], step: int | None) -> None:
    """The network's tensors and, as metadata, what is needed to build it again; step: None where nobody knows it."""
    facts = {
        "network": json.dumps(network_spec),
        "class_names": json.dumps(network.class_names),
        **({} if step is None else {"step": str(step)}),
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with whole(path) as partial:
        try:
            save_file(tensors, partial, metadata={"format": "pt", **facts})
        except SafetensorError as error:
            raise RunError(f"cannot write {path}: {error}; free space or choose another folder") from error


def snapshot_path(run: Path, step: int) -> Path:
    return run / "snapshots" / f"network-{step:07d}.safetensors"


def snapshots(run: Path) -> dict[int, Path]:
    """Step -> file of each snapshot of a run's student, the earliest first."""
    found = (run / "snapshots").glob("network-*.safetensors")
    return {int(path.stem.removeprefix("network-")): path for path in sorted(found)}


def load_network(
    run: str | Path, which: Which = "student", device: torch.device | str = "cpu", step: int | None = None
) -> Network:
    """The trained network of a run folder, in evaluation mode: the last, or the student's snapshot after `step`.

    WeightsError when it is missing or does not fit.
    """
    run = Path(run)
    recipe = load_recipe_of(run)
    path = run / FILES[which] if step is None else snapshot_path(run, step)
    if not path.is_file() and step is not None:
        raise WeightsError(
            f"{run} has no snapshot of step {step}; it has: {', '.join(map(str, snapshots(run))) or 'none'}"
        )
    if not path.is_file():
        has = [name for name, file in FILES.items() if (run / file).is_file()]
        raise WeightsError(
            f"{run} has no {which} ({path.name}); it has: {', '.join(has) or 'none yet: train it first'}"
        )
    # The weights come from the file: whatever the recipe started from need not be there any more.
    spec = {**recipe.network, **({"weights": "scratch"} if "weights" in recipe.network else {})}
    network = build(NETWORKS, spec, "network", class_names=space_of(recipe).classes)
    fit(network, read_tensors(path), path)
    return network.to(device).eval()


def read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a whole safetensors file ({error}); save or copy it again") from error


def fit(network: Network, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Loads all of `tensors` into all of `network`, or says in one line what does not match."""
    own = network.state_dict()
    wrong = [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    missing = [name for name in own if name not in tensors]
    extra = [name for name in tensors if name not in own]
    if wrong or missing or extra:
        first = (wrong + [f"no {name}" for name in missing] + [f"unknown {name}" for name in extra])[0]
        raise WeightsError(
            f"{path} does not fit this network: {first} ({len(wrong)} other shapes, {len(missing)} missing, "
            f"{len(extra)} unknown of {len(own)}); is it from another architecture or another number of classes?"
        )
    network.load_state_dict(dict(tensors))


def step_of(run: Path, which: Which = "student") -> int | None:
    """The training step at which a run's network was saved; None for one that was trained elsewhere."""
    from safetensors import safe_open

    with safe_open(run / FILES[which], "pt") as file:
        step = (file.metadata() or {}).get("step")
    return None if step is None else int(step)


def space_of(recipe: Recipe) -> Space:
    """The label space a recipe's network learns."""
    return space_named(recipe.data.space) if recipe.data.space else own_space(recipe.data.source)


def data_root(recipe: Recipe | None, given: Path | None) -> Path:
    """--data / --root, else the recipe's data.root, else $SEGDA_DATA, else data/."""
    return given or (recipe.data.root if recipe else None) or default_root()

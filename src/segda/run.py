"""A run folder: what it holds, and how it is written and read without ever being half there.

recipe.yaml            the resolved recipe, itself a valid recipe
environment.json       versions, machine, command
data.json              the classes and their colours, and what the data were, see run_data.py
log.jsonl              one JSON object a line: training scalars, evaluations, images that were left out
last.pt                everything that training needs to go on; always a whole file
checkpoints/           the newest checkpoints (recipe key `keep`), as checkpoint-0002000.pt
network.safetensors    the student; each other product of the method by its name, as teacher.safetensors
snapshots/             the same every `keep_every` steps, as network-0002000 and teacher-0002000.safetensors
watched/               the target as it was seen early, in the middle and at the end, see reporting/watched.py
logger.json            what trackers call the run; tensorboard/ and wandb/ are theirs
reports/*.json         evaluations, one file a data set
report.html            curves, tables and pictures
"""

from __future__ import annotations

import json
import logging
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
from torch import Tensor, nn

from segda.data.sets.datasets import default_root
from segda.errors import RecipeError, RunError, WeightsError, visible
from segda.ground.alone import LOCK
from segda.ground.atomic import atomic_write, cannot_write, is_partial, remove_partial, sync, write_text
from segda.ground.paths import expanded, recipe_file, regular
from segda.ground.safe_yaml import json_values, read_json
from segda.ground.sealed import NoDigest, Sealed, check_sealed
from segda.ground.trust import read_from, trusting
from segda.methods import METHODS
from segda.networks import NETWORKS
from segda.networks.network import Network
from segda.networks.weights import files
from segda.networks.weights.archives import write_archive
from segda.networks.weights.undrawn import Undrawn
from segda.own_files import is_marked, marked, others, refuse_unreadable, remove_own
from segda.recipes.build import build, from_scratch
from segda.recipes.diff import admit, refuse_another
from segda.recipes.facts import method_class
from segda.recipes.recipe import Recipe, load_recipe
from segda.run_data import record, space_in

log = logging.getLogger(__name__)

Which = Literal["student", "teacher"]
Standing = Literal["new", "unsaved", "begun", "finished"]


def product_path(run: Path, product: str) -> Path:
    """The file of what a method makes: the student's is called network, any other as the product is."""
    return run / f"{_stem(product)}.safetensors"


def _stem(product: str) -> str:
    return "network" if product == "student" else product


def products_in(run: Path) -> list[str]:
    """The products whose files are in a run folder, the student first."""
    stems = sorted((path.stem for path in run.glob("*.safetensors")), key=lambda stem: (stem != "network", stem))
    return ["student" if stem == "network" else stem for stem in stems]


PACE = ("seconds", "waiting")
"""What a line of the log says of the machine; two equal runs differ in it."""

NO_TERMS = ("step", *PACE, "evaluation", "skipped", "draw")
"""What a line of the log holds besides a method's terms and its rates."""

CHECKPOINT_FORMAT = 5


def is_strange(out: Path) -> bool:
    """Whether something is there that is neither a run nor left of one that was killed as it began."""
    try:
        if (out / "recipe.yaml").exists() or not out.exists():
            return False
        return not out.is_dir() or any(not _left_over(path) for path in out.iterdir())
    except OSError as error:  # nobody may look into it
        raise cannot_write(out, error) from error


def check_folder(out: Path, recipe: Recipe, *, resume: bool, overwrite: bool) -> None:
    """RunError when `out` cannot take a run of `recipe`: it holds another run, no run to resume, or something else.

    With `resume` a folder that is not there yet, or whose run has no checkpoint yet, will do: the run begins there.
    Whether a checkpoint is of this recipe is told by the checkpoint.
    """
    holds_run = (out / "recipe.yaml").exists()
    if resume and holds_run:
        if (out / "last.pt").exists():
            return
        if products_in(out):
            # A converted network, or a run whose checkpoint was deleted: to begin would destroy it.
            raise RunError(f"{out} holds a network but no checkpoint to resume from (last.pt); use another --out")
        admit(out, load_recipe_of(out), recipe)
    elif holds_run and not overwrite:
        raise RunError(f"{out} already holds a run; use --resume to go on, --overwrite to begin anew, or another --out")
    elif holds_run and not is_marked(out):
        raise RunError(
            f"{out}: its recipe.yaml is not as segda left it, so --overwrite removes nothing there; choose another "
            "--out, or remove the folder yourself"
        )
    elif holds_run:
        refuse_unreadable(out)
    elif is_strange(out):
        raise RunError(f"{out} exists and is not a run of segda; choose another --out")


def _left_over(path: Path) -> bool:
    """Whether a process that was killed left this: a run can be killed before its folder holds anything else."""
    return path.name == LOCK or is_partial(path)


def standing(out: Path, recipe: Recipe) -> Standing:
    """How far the run of `recipe` in the folder `out` is; RunError where it holds another run, or something else.

    unsaved: begun, but without a checkpoint. finished: trained to the last step and, if the recipe says so, scored.
    """
    if not (out / "recipe.yaml").is_file():
        check_folder(out, recipe, resume=False, overwrite=False)
        return "new"
    refuse_another(out, load_recipe_of(out), recipe)
    if not (out / "last.pt").is_file():
        return "unsaved"
    products = method_class(recipe.method).products
    trained = all(product_path(out, each).is_file() and step_of(out, each) == recipe.steps for each in products)
    scored = (out / "report.html").is_file() or not recipe.evaluate.data
    return "finished" if trained and scored else "begun"


def begin(out: Path, recipe: Recipe) -> None:
    """An empty run folder with the resolved recipe and its classes in it; what segda wrote of an earlier run is
    removed, and what is others' stays and is named.

    In this order: whenever it is killed, what is left is a run that goes on, one that begins, or no run.
    """
    made = {product for method in (*METHODS.values(), method_class(recipe.method)) for product in method.products}
    remove_own(out, {_stem(product) for product in made})
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from error
    remove_partial(out)
    if kept := list(others(out)):
        log.info(f"{out}: kept what segda did not write: {', '.join(map(visible, kept))}")
    write_recipe(out, recipe)
    record(out, recipe, {})


def write_recipe(out: Path, recipe: Recipe) -> None:
    """recipe.yaml, which says that the folder is a run's."""
    write_text(out / "recipe.yaml", marked(recipe.to_yaml()))


def load_recipe_of(run: Path) -> Recipe:
    """The resolved recipe of a run folder; RunError when `run` is none, or names code that nobody trusts."""
    path = recipe_file(run)
    with read_from(run):
        return load_recipe(path)


def refuse_twice(runs: Sequence[Path]) -> None:
    """RecipeError where two of them are one folder."""
    places = [run.resolve() for run in runs]
    if twice := [run for run, place in zip(runs, places, strict=True) if places.count(place) > 1]:
        raise RecipeError(f"{twice[0]} is named twice; name it once")


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
    lines = _bytes(path).splitlines()
    for number, line in enumerate(lines, 1):
        try:
            found = json_values(line)
        except ValueError as error:
            if number < len(lines):
                raise RunError(f"{path} line {number} is not JSON; the log was edited or damaged") from error
            return
        if not _is_entry(found):
            raise RunError(f"{path} line {number} is no line of a log; it was edited or damaged: remove the line")
        yield found


def _bytes(path: Path) -> bytes:
    """The content of a file, none of one that is not there. RunError where it cannot be read."""
    try:
        return regular(path).read_bytes() if path.exists() else b""
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}); remove it, or copy it again") from error


def _is_entry(found: Any) -> bool:
    """Whether a line of a log is what one can be: a step and scalars by their names, histograms, a data set's name, the
    file that was left out.
    """
    if not isinstance(found, dict) or type(found.get("step")) is not int or found["step"] < 0:
        return False
    for name, value in found.items():
        numbers = value if isinstance(value, list) else [] if value is None else [value]
        known = isinstance(value, str) if name in ("evaluation", "skipped") else all(map(_is_number, numbers))
        if not known or not name.isprintable() or not str(value).isprintable():
            return False
    return True


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300  # NaN and infinite are none


def scored_at(run: Path, step: int) -> set[str]:
    """The data sets that the log has scores of, after `step`."""
    return {line["evaluation"] for line in read_log(run) if line["step"] == step and "evaluation" in line}


def forget_after(run: Path, step: int, scored: set[str] | None) -> None:
    """Removes what a run that goes on after `step` will write again: log, snapshots, checkpoints.

    The scores of `step` itself stay if those of all data sets `scored` are there; None: they go in any case.
    """
    remove_partial(run)
    there = scored is not None and scored <= scored_at(run, step)
    lines = [line for line in read_log(run) if line["step"] <= step]
    lines = [line for line in lines if there or line["step"] < step or "evaluation" not in line]
    write_text(run / "log.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    kept = [*(snapshots(run, product) for product in products_in(run)), checkpoints(run)]
    try:
        for path in (path for files in kept for at, path in files.items() if at > step):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(run, error) from error


def read_environment(run: Path) -> dict[str, Any]:
    """environment.json; empty where there is none yet."""
    path = run / "environment.json"
    try:
        return dict(read_json(path)) if path.exists() else {}
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{path} cannot be read ({error}); remove it to go on without what it records") from error


def save_checkpoint(run: Path, state: Mapping[str, Any], keep: int) -> None:
    """last.pt, whole or not at all, and `keep` older ones in checkpoints/.

    There the new one is linked to before it becomes last.pt, under the name of its step.
    """
    last = run / "last.pt"
    with atomic_write(last, lasting=True) as partial:
        with partial.open("wb") as file:
            write_checkpoint(file, state, last)
        log = run / "log.jsonl"
        if log.exists():
            sync(log)  # what a run that goes on from here does not write again
        if keep:
            sync(partial)
            _link(partial, checkpoint_path(run, state["t"]))
    for path in list(checkpoints(run).values())[: -(keep + 1)]:
        path.unlink(missing_ok=True)


def write_checkpoint(file: BinaryIO, state: Mapping[str, Any], path: Path) -> None:
    """A state as `load_checkpoint` reads it, with its digest; path: for the message where that fails."""
    sealed = Sealed(file)
    write_archive(sealed, dict(state), path)
    sealed.seal()


def _link(file: Path, name: Path) -> None:
    """`name` for the same file, or for a copy of it on a file system that has no second names."""
    name.parent.mkdir(exist_ok=True)
    name.unlink(missing_ok=True)
    try:
        name.hardlink_to(file)
    except OSError:
        with atomic_write(name) as copy:
            shutil.copyfile(file, copy)


def checkpoint_path(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"checkpoint-{step:07d}.pt"


def checkpoints(run: Path) -> dict[int, Path]:
    """Step -> file of each checkpoint that is kept, the earliest first; the latest is last.pt."""
    return _by_step(run / "checkpoints", "checkpoint-", ".pt")


def load_checkpoint(run: Path) -> dict[str, Any]:
    """last.pt, read as plain tensors and numbers; nothing in it is executed. WeightsError when it is not as it was
    written. What the state holds is checked by who takes it, see training/fitting.py.
    """
    path, unsealed = run / "last.pt", None
    # Every Exception: of a damaged pickle torch lets through whatever Python says of it.
    try:
        try:
            check_sealed(path)
        except NoDigest as error:  # an earlier version's, perhaps
            unsealed = error
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = state.get("format") if type(state) is dict else None
        if unsealed is not None and found == CHECKPOINT_FORMAT:
            raise unsealed
    except Exception as error:
        reason = (str(unsealed or error) or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"{path} is no whole checkpoint of segda and was not run: {reason}; {instead_of_last(run)}"
        ) from error
    if type(found) is not int or found != CHECKPOINT_FORMAT:
        raise WeightsError(
            f"{path} was written by another version of segda, in another format; finish the run with that version, or "
            "train anew with --overwrite"
        )
    return state


def instead_of_last(run: Path) -> str:
    """What to do where last.pt is of no use: the newest older checkpoint that is whole is to take its place."""
    last = run / "last.pt"
    for path in reversed(checkpoints(run).values()):
        if not path.samefile(last) and _is_whole(path):
            return f"mv {shlex.quote(str(path))} {shlex.quote(str(last))}, or train anew with --overwrite"
    return "train anew with --overwrite"


def _is_whole(checkpoint: Path) -> bool:
    try:
        check_sealed(checkpoint)
    except (OSError, ValueError):
        return False
    return True


def save_network(
    path: Path,
    network: Network,
    network_spec: Mapping[str, Any],
    step: int | None,
    tensors: Mapping[str, Tensor] | None = None,
) -> None:
    """The network's tensors and, as metadata, what is needed to build it again; step: None where nobody knows it.

    tensors: in place of the network's own, where those are shards. The same network gives the same file, byte for byte.
    """
    facts = {"network": json.dumps(network_spec), "class_names": json.dumps(network.class_names)}
    _save(path, facts, step, network.state_dict() if tensors is None else tensors)


def save_product(path: Path, method_spec: Mapping[str, Any], step: int | None, tensors: Mapping[str, Tensor]) -> None:
    """The tensors of what is no segmentation network and, as metadata, the method whose product it is."""
    _save(path, {"method": json.dumps(method_spec)}, step, tensors)


def _save(path: Path, facts: dict[str, str], step: int | None, tensors: Mapping[str, Tensor]) -> None:
    files.save_tensors(path, facts | ({} if step is None else {"step": str(step)}), tensors)


def snapshot_path(run: Path, step: int, product: str = "student") -> Path:
    return run / "snapshots" / f"{_stem(product)}-{step:07d}.safetensors"


def snapshots(run: Path, product: str = "student") -> dict[int, Path]:
    """Step -> file of each snapshot of a run's student, or another product, the earliest first."""
    return _by_step(run / "snapshots", f"{_stem(product)}-", ".safetensors")


def _by_step(folder: Path, before: str, after: str) -> dict[int, Path]:
    named = re.compile(rf"{re.escape(before)}(\d{{7,}}){re.escape(after)}")
    found = {path: named.fullmatch(path.name) for path in sorted(folder.glob(f"{before}*{after}"))}
    return {int(match[1]): path for path, match in found.items() if match}


def network_path(run: Path, product: str = "student", step: int | None = None) -> Path:
    """The file of a run's network: the last, or the one after `step`. WeightsError, naming those that are there."""
    last = product_path(run, product)
    if not last.is_file():
        has = ", ".join(products_in(run))
        raise WeightsError(f"{run} has no {product} ({last.name}); it has: {has or 'none yet: train it first'}")
    if step is None:
        return last
    kept = snapshots(run, product)
    if step in kept:
        return kept[step]
    if (end := step_of(run, product)) == step:
        return last
    steps = [*map(str, kept), *([] if end is None or end in kept else [f"{end} (the last)"])]
    raise WeightsError(
        f"{run} has no {product} of step {step}; it has: {', '.join(steps) or 'the last alone'} (recipe key keep_every)"
    )


def load_network(
    run: str | Path,
    weights: Which = "student",
    device: torch.device | str = "cpu",
    step: int | None = None,
    trust: Sequence[Path | str] = (),
) -> Network:
    """The trained network of a run folder, in evaluation mode: the last, or the one after `step`.

    WeightsError when it is missing or does not fit. A run of a class of somebody's own is refused unless `trust` names
    its folder: to import the class runs its code.
    """
    run = Path(run)
    with trusting(trust):
        recipe = load_recipe_of(run)
    path = network_path(run, weights, step)
    # The weights come from the file: whatever the recipe started from need not be there any more.
    spec = from_scratch(NETWORKS, recipe.network, "network")
    return built_from(path, spec, space_in(run).classes).to(device).eval()


def built_from(path: Path, spec: dict[str, Any], class_names: Sequence[str]) -> Network:
    """The network of a spec with the tensors of a file of ours, which are all that it has: nothing is drawn for it."""
    with Undrawn():
        network = build(NETWORKS, spec, "network", class_names=class_names)
    fill(network, read_tensors(path), path)
    return network


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of ours. WeightsError when they are not those that were saved; a warning when the file has
    no digest that could say so.
    """
    try:
        tensors, checked = files.read_tensors(path)
    except WeightsError:
        raise
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} is not a whole safetensors file ({error}); save or copy it again") from error
    if not checked:
        log.warning("%s has no digest: other code or an earlier version wrote it, and damage would not show", path)
    return tensors


def fill(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
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
    if odd := next((name for name, value in tensors.items() if not value.isfinite().all()), None):
        raise WeightsError(f"{path}: {odd} holds numbers that are not finite; use a run whose training stayed finite")
    network.load_state_dict(dict(tensors))


def step_of(run: Path, product: str = "student") -> int | None:
    """The training step at which a run's network was saved; None for one that was trained elsewhere."""
    path = product_path(run, product)
    try:
        step = files.read_facts(path).get("step")
        return None if step is None else int(step)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} is not a whole network of segda ({error}); save or copy it again") from error


def data_root(recipe: Recipe | None, given: Path | None) -> Path:
    """--data / --root, else the recipe's data.root, else $SEGDA_DATA, else data/."""
    return expanded(given or (recipe.data.root if recipe else None) or default_root())

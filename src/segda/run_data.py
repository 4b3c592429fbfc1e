"""data.json of a run folder: the classes that its network knows, and the data that it learnt them from.

    space, classes    the label space: the classes in the order of the network's channels, each with its colour
    sets              each data set of the recipe: its images, their bytes, a hash of their names and sizes; of the
                      source, whose labels are learnt, a hash of what is in the label files
    folders           each YAML file of one's own that these are told by: where it is, seen from the run folder, and
                      what it said of labels

So a run predicts wherever its folder is, and what its YAML file says by then changes nothing. Where that says another
thing of labels, the run is neither measured on it nor resumed. How images are normalised is in the networks' files.
Run folders from before there was a data.json take their classes from the recipe; where the recipe's data say other ones
than the network's file, they are refused.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from segda.data.files.archives import content_mark, state
from segda.data.labels.spaces import SPACES, Space, space_named
from segda.data.sets.dataset import DataSet
from segda.data.sets.labelled import open_labelled
from segda.data.sets.specs import FOLDER, data_sets, own_space
from segda.data.sets.told import listed_classes
from segda.errors import RecipeError, RunError
from segda.ground.atomic import write_text
from segda.ground.paths import expanded
from segda.ground.safe_yaml import json_values, one_line, read_json, read_yaml
from segda.ground.sealed import DIGEST, with_digest, without_digest
from segda.ground.trust import read_from
from segda.networks.weights.files import read_facts
from segda.recipes.diff import Changes, differences, told
from segda.recipes.recipe import Recipe, load_recipe

log = logging.getLogger(__name__)

DATA = "data.json"

LABELLED = "data.source.set"
"""The data set whose labels are learnt. A target's are never opened, and so not hashed."""

LABEL_FILES = 4000
"""Label files that are read for their hash, at most: evenly spread over more. The 367 of CamVid take 5 ms."""

ELSEWHERE = ("root", "splits")
"""Keys of a YAML file that say where the files are: nothing of what a label means."""


def space_of(recipe: Recipe) -> Space:
    """The label space that a recipe's network will learn."""
    if recipe.data.space is not None:
        return space_named(recipe.data.space)
    spec = (recipe.data.source or recipe.data.target).set
    space = own_space(spec)
    if len(space.classes) < 2:
        raise RecipeError(
            f"{spec}: has only one class ({space.classes[0]}), so that there is nothing to tell apart; name the rest "
            "as a class too, such as background: {id: 0}, in place of ignored"
        )
    return space


def specs_of(recipe: Recipe) -> dict[str, str]:
    """The data sets of a recipe, by the keys that name them; those that are measured by themselves."""
    domains = {key: getattr(recipe.data, key) for key in ("source", "target", "reference")}
    named = {f"data.{key}.set": domain.set for key, domain in domains.items() if domain is not None}
    return named | {f"evaluate.data {spec}": spec for spec in recipe.evaluate.data}


def record(run: Path, recipe: Recipe, sets: Mapping[str, DataSet]) -> None:
    """Writes data.json. sets: those that are opened, by the keys of `specs_of`."""
    space = space_of(recipe)
    specs = specs_of(recipe)
    tree = {
        "space": space.name,
        "classes": {name: list(colour) for name, colour in space.colours.items()},
        "sets": {key: {"spec": specs[key], **_known(key, data)} for key, data in sets.items()},
        "folders": {
            path: {"place": os.path.relpath(expanded(path), run), "says": _says(path)}
            for path in sorted({path for spec in specs.values() for path in _files(spec)})
        },
    }
    write_text(run / DATA, json.dumps(with_digest(tree), indent=1) + "\n")


def space_in(run: Path) -> Space:
    """The label space that a run's network has learnt. RunError where nothing says so any more."""
    if (run / DATA).is_file():
        tree = _read(run)
        colours = {name: (red, green, blue) for name, (red, green, blue) in tree["classes"].items()}
        known = SPACES.get(tree["space"])
        # A known space also says which names of other labellings its classes are.
        return known if known is not None and known.colours == colours else Space(tree["space"], colours)
    space, names = space_of(_recipe(run)), _names_in(run)
    if names is not None and names != space.classes:
        raise RunError(
            f"{run}: its network was trained on {', '.join(names)}, and the recipe's data now say "
            f"{', '.join(space.classes)}; put them back as they were"
        )
    return space


def measured_on(run: Path, spec: str, root: Path) -> DataSet:
    """A labelled data set in the classes of a run. RunError where a YAML file that it was trained by says another thing
    of labels now. What of somebody's own labels the run does not know is said.
    """
    refuse_other_labels(run, [spec])
    data = open_labelled(spec, root, space_in(run))
    for line in dict.fromkeys(line for part in data.parts for line in part.doubts()):
        log.warning(line)
    return data


def seen_from_here(run: Path, spec: str) -> str:
    """A data set of a run's recipe, whose YAML files are found where they are now, seen from the run folder."""
    if (run / DATA).is_file():
        for path, one in _read(run)["folders"].items():
            place = os.path.normpath(run / one["place"])
            if not expanded(path).exists() and os.path.isfile(place):
                spec = spec.replace(f"{FOLDER}{path}:", f"{FOLDER}{place}:")
    return spec


def refuse_other_labels(run: Path, specs: Iterable[str]) -> None:
    """RunError where one of the YAML files that the run was trained by says another thing of labels now."""
    if not (run / DATA).is_file():
        return
    for spec in specs:
        for path in _files(spec):
            for one in _read(run)["folders"].values():
                if not _same_file(run / one["place"], expanded(path)):
                    continue
                if changed := differences(one["says"], _says(path)):
                    raise RunError(
                        f"{path} says something else than when {run} was trained ({told(changed)}); put it back, or "
                        "describe the other data in a file of its own"
                    )


def refuse_other_classes(run: Path, recipe: Recipe) -> None:
    """RunError where a run that is to go on has other classes than its recipe's data now say, or labels that mean
    another thing.
    """
    then, now = space_in(run).classes, space_of(recipe).classes
    if then != now:
        order = " in this order" if set(then) == set(now) else ""
        raise RunError(
            f"{run}: was begun with the classes {', '.join(then)}, and its data now say {', '.join(now)}; put them back"
            f"{order}, or train anew"
        )
    refuse_other_labels(run, specs_of(recipe).values())


def changed_files(run: Path, sets: Mapping[str, DataSet]) -> Changes:
    """The data sets that the run learns from whose files are no more those that it was begun with."""
    if not (run / DATA).is_file():
        return {}
    found: Changes = {}
    for key, data in sets.items():
        before = _read(run)["sets"].get(key)
        if not key.startswith("data.") or before is None or before["spec"] != data.spec:
            continue
        now = {"spec": data.spec, **_known(key, data)}
        # Run folders of earlier versions have no hash of labels.
        changed = {name for name in now if name in before and now[name] != before[name]}
        if not changed:
            continue
        one, other = (f"{each['images']} images, {each['bytes']} bytes" for each in (before, now))
        how = "other contents of label files" if changed == {"labels"} else "by other names or sizes"
        found[f"the files of {data.spec}"] = (one, other if other != one else f"{other}, {how}")
    return found


def _known(key: str, data: DataSet) -> dict[str, Any]:
    """What is kept of a data set: its fingerprint, and where its labels are learnt, theirs."""
    return fingerprint(data) | ({"labels": label_digest(data)} if key == LABELLED else {})


def fingerprint(data: DataSet) -> dict[str, Any]:
    """Images and bytes, and a hash of each image's name and size (of a drawn one, of how it is drawn)."""
    digest, total = hashlib.sha256(), 0
    for part in data.parts:
        for i, name in enumerate(part.names):
            path = part.image_path(i)
            size = 0 if path is None else state(path)[0]
            digest.update(f"{name} {size} {part.image_mark(i) if path is None else ''}\n".encode())
            total += size
    return {"images": len(data), "bytes": total, "sha256": digest.hexdigest()}


def label_digest(data: DataSet) -> str:
    """A hash of what is in the label files: of each, or of LABEL_FILES evenly spread over more. Names and times say
    nothing, so that a copy has the same.
    """
    labelled = ((part, i) for part in data.parts for i in range(len(part)) if part.labelled(i))
    labels = (path for part, i in labelled for path in part.label_files(i))
    files = list(dict.fromkeys(labels))
    digest = hashlib.sha256()
    for path in files[:: max(1, -(-len(files) // LABEL_FILES))]:
        digest.update(content_mark(path).encode() + b"\n")
    return digest.hexdigest()


def _files(spec: str) -> list[str]:
    """The YAML files of a spec."""
    return sorted(name.removeprefix(FOLDER) for name in data_sets(spec) if name.startswith(FOLDER))


def _says(path: str) -> dict[str, Any]:
    """What a YAML file says of labels. Colours are only shown, unless labels are told by them."""
    try:
        tree = read_yaml(expanded(path))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({one_line(error)}); it must be YAML") from error
    said = {key: value for key, value in tree.items() if key not in ELSEWHERE}
    if isinstance(said.get("classes"), str):
        said["classes"] = listed_classes(path, tree)
    if said.get("labels_are", "ids") != "colours" and isinstance(said.get("classes"), Mapping):
        said["classes"] = {
            name: {key: value for key, value in one.items() if key != "colour"} if isinstance(one, Mapping) else one
            for name, one in said["classes"].items()
        }
    return json.loads(json.dumps(said, default=str))


def _same_file(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _read(run: Path) -> dict[str, Any]:
    path = run / DATA
    try:
        tree = read_json(path)
        if DIGEST in tree:  # the first ones had none
            tree = without_digest(tree)
        classes, sets, folders = tree["classes"], tree["sets"], tree["folders"]
        sound = tree["space"].isprintable() and tree["space"] == Path(tree["space"]).name
        sound = sound and all(map(_is_class, classes, classes.values()))
        sound = sound and all(isinstance(one, Mapping) and "images" in one and "bytes" in one for one in sets.values())
        if not sound or not all(isinstance(one["says"], dict) and (run / one["place"]) for one in folders.values()):
            raise ValueError("it was edited or damaged")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} cannot be read ({one_line(error)}); copy the run folder again") from error
    return dict(tree)


def _is_class(name: str, colour: Sequence[int]) -> bool:
    return name.isprintable() and len(colour) == 3 and all(type(one) is int and 0 <= one < 256 for one in colour)


def _recipe(run: Path) -> Recipe:
    with read_from(run):
        return load_recipe(run / "recipe.yaml")


def _names_in(run: Path) -> tuple[str, ...] | None:
    """The classes that a network's file of the run names; None where there is none yet."""
    path = run / "network.safetensors"
    if not path.is_file():
        return None
    try:
        names = read_facts(path).get("class_names")
        return None if names is None else tuple(json_values(names))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{path} is not a whole network of segda ({one_line(error)}); save or copy it again") from error

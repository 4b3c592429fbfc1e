"""Checkpoints of other code bases as networks of ours: a run folder, a file, or an encoder to start from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segda import run as runs
from segda.conversion import translators
from segda.conversion.asked import (
    PLAIN,
    Asked,
    Converted,
    agreed,
    is_constant,
    layout_named,
    refuse_idle,
    refuse_taken,
)
from segda.data.labels.spaces import plain
from segda.errors import RecipeError, RunError, WeightsError, few
from segda.ground.alone import LOCK, alone_in
from segda.ground.atomic import cannot_write, write_text
from segda.ground.hardware import environment
from segda.networks import NETWORKS
from segda.networks.encoders.encoder import Encoder
from segda.networks.encoders.table import ENCODERS, of_family
from segda.networks.network import Network
from segda.networks.weights import hugging_face, open_mmlab
from segda.networks.weights.files import save_tensors
from segda.networks.weights.hub import HUB_NAME, ON_HUB, from_hub
from segda.networks.weights.layouts import LAYOUTS, LIGHT, Layout, from_theirs, relit_in, styles_of
from segda.networks.weights.load import COUNTER, check, family_of, read
from segda.networks.weights.names import FAMILIES
from segda.networks.weights.wrappers import Held, stripped
from segda.own_files import is_marked
from segda.recipes.build import build, from_scratch
from segda.recipes.recipe import Recipe
from segda.run_data import space_of


def _refuse_another_network(layout: Layout, style: str, recipe: Recipe | None) -> None:
    """RecipeError unless the recipe is there where it is needed, and of a network that the style has."""
    if layout.encoder:
        return
    if recipe is None:
        raise RecipeError("--recipe: needed to know the network, its classes and how it is measured; give a recipe")
    spec = relit_in(recipe.network)
    named = spec["name"] in layout.networks and (layout.over is None or layout.holds(spec))
    if not named or layout.variant not in (None, spec.get("variant", "advent")):
        raise RecipeError(
            f"--recipe: its network is {in_words(recipe.network)}, but {style} checkpoints are {layout.network}; "
            "give a recipe with that network"
        )


def opened(given: Path, source: str | None, which: runs.Which) -> Held:
    """The `which` network of the file, or the one in a folder, or on Hugging Face's hub where the style is one of
    theirs, by the names that a style knows if it has them anywhere.
    """
    file = _file_of(given, source)
    held = read(file, which)
    if styles_of(held.tensors, held.which, source and (source,)):
        return held
    # An encoder stands inside any network: behind other words it is not what the file is about.
    whole = [style for style, layout in LAYOUTS.items() if style == source or not (source or layout.encoder)]
    return stripped(held, lambda inside: bool(styles_of(inside, "student", whole)))


def _file_of(given: Path, source: str | None) -> Path:
    file = given
    if (given / "recipe.yaml").is_file():
        raise RecipeError(f"{given} is a run of ours; name the style that it shall have with --to")
    if given.is_dir():
        file = next((given / name for name in ON_HUB if (given / name).is_file()), given)
        if file == given:
            raise WeightsError(f"{given}: the folder holds none of {', '.join(ON_HUB)}; name the file itself")
    elif not given.is_file() and source and LAYOUTS[source].folder and HUB_NAME.fullmatch(str(given)):
        file = from_hub(str(given))
    if not file.is_file():
        raise WeightsError(f"{given}: no such file; give a checkpoint of other code, or name its style with --to")
    return file


def style_of(held: Held, recipe: Recipe | None) -> str:
    """The style that the names in the file say, and the recipe where several networks have the same names."""
    by_name = styles_of(held.tensors, held.which)
    if not by_name and held.which == "teacher" and (known := styles_of(held.tensors, "student")):
        raise WeightsError(
            f"{held.file}: holds a student of style {' or '.join(known)}, and no teacher or other mean of its weights; "
            "use --weights student"
        )
    if not by_name:
        raise WeightsError(
            f"{held.file}: holds the {held.which} of no style that is known ({', '.join(LAYOUTS)}); its first names "
            f"are {few(held.tensors)}; is it the right file? (From our names to others: --to)"
        )
    told = " or ".join(by_name)
    if recipe is None and not any(LAYOUTS[style].encoder for style in by_name):
        raise RecipeError(f"--recipe: needed to know the network of this {told} checkpoint; give a recipe")
    fitting = [
        style for style in by_name if LAYOUTS[style].encoder or (recipe and LAYOUTS[style].holds(recipe.network))
    ]
    if not fitting:
        assert recipe is not None  # without one, an encoder's style fits
        networks = " or ".join(dict.fromkeys(LAYOUTS[style].network for style in by_name))
        raise RecipeError(
            f"--recipe: {held.file} has the names of style {told}, whose network is {networks}, not the recipe's "
            f"{in_words(recipe.network)}; give a recipe with that network"
        )
    if len(fitting) > 1:
        raise RecipeError(f"{held.file}: has names of {' and '.join(fitting)}; say which it is with --from")
    return fitting[0]


def in_words(spec: Mapping[str, Any]) -> str:
    inner = relit_in(spec)
    around = "" if inner is spec else f"{spec['name']} over "
    parts = (("with decoder", "decoder"), ("of variant", "variant"))
    return " ".join([f"{around}{inner['name']}", *(f"{word} {inner[key]}" for word, key in parts if key in inner)])


def _network(held: Held, asked: Asked, recipe: Recipe | None) -> Converted:
    """A whole network, into a run folder or a file."""
    assert recipe is not None
    as_file = asked.out.suffix == ".safetensors"
    if as_file and asked.allow_missing:
        raise RecipeError(
            f"--out {asked.out}: with --allow-missing it must be a run folder, which keeps in environment.json what "
            "is missing; name one"
        )
    if as_file:
        refuse_taken(asked.out, asked.overwrite)
    else:
        _refuse_taken_run(asked.out, recipe, asked.overwrite)
    found, left_out = translated(held, asked)
    spec = from_scratch(NETWORKS, recipe.network, "network")
    # What the file may lack is a function of the recipe alone.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = build(NETWORKS, spec, "network", class_names=space_of(recipe).classes)
    taken = len(found)
    found, notes = as_configured(network, spec, found, asked.layout, held, asked.leave_out)
    added, missing = fill(network, found, asked.layout, held.file, allow_missing=asked.allow_missing)
    notes += _other_colours(held, space_of(recipe).colours, asked.leave_out)
    done = Converted(asked.out, asked.style, taken, left_out, added, missing, notes)
    if as_file:
        runs.save_network(asked.out, network, recipe.network, step=None)
    else:
        _into_run(
            done, recipe, held.file, "student", lambda path: runs.save_network(path, network, recipe.network, step=None)
        )
    return done


def _into_run(done: Converted, recipe: Recipe, file: Path, product: str, save: Callable[[Path], None]) -> None:
    """A run folder of what a file held; `save` writes the product."""
    facts = environment(torch.device("cpu"), torch.float32) | {
        "start": f"{done.style} checkpoint {file}",
        "left_out": done.left_out,
        "missing": done.missing,
        **({"notes": done.notes} if done.notes else {}),
    }
    # The large file first: if there is no room for it, what OUT holds stays. It comes in last, and says that all is
    # there.
    fresh = done.out.with_name(f".{done.out.name}.converted")
    try:
        save(fresh)
        runs.begin(done.out, recipe)
        write_text(done.out / "environment.json", json.dumps(facts, indent=2) + "\n")
        fresh.replace(runs.product_path(done.out, product))
    except OSError as error:
        raise cannot_write(done.out, error) from error
    finally:
        fresh.unlink(missing_ok=True)


def _translator(given: Path, asked: Asked, recipe: Recipe | None) -> Converted:
    """CycleGAN's generator, into a run folder."""
    translators.refuse_other_recipe(recipe)
    assert recipe is not None, "refused"
    tensors, done = translators.generator_in(given, recipe, asked)
    product = translators.product_of(given)
    with alone_in(asked.out, "another process converts to {folder}"):
        _refuse_taken_run(asked.out, recipe, asked.overwrite)
        _into_run(done, recipe, given, product, lambda path: runs.save_product(path, recipe.method, None, tensors))
    return done


def _encoder(held: Held, asked: Asked, kind: str) -> Converted:
    """An encoder alone, into a file that network.weights takes."""
    if asked.out.suffix != ".safetensors":
        raise RecipeError(
            f"--out {asked.out}: a file of style {asked.style} holds an encoder alone; write a .safetensors file"
        )
    if asked.allow_missing:
        raise RecipeError(f"--allow-missing: an encoder of style {asked.style} must be whole; remove it")
    refuse_taken(asked.out, asked.overwrite)
    found, left_out = translated(held, asked)
    family = FAMILIES[kind]
    tensors = {name.removeprefix("encoder."): tensor for name, tensor in found.items()}
    size = family.size(tensors) or of_family(kind)[0]
    row = ENCODERS[size]
    hugging_face.refuse_other_images(held.file, row.normalisation)
    encoder = row.build(size, drop_path=0.0) if row.drop_path else row.build(size)
    check(encoder, tensors, family, held.file)
    own = encoder.state_dict()
    added = tuple(f"encoder.{name}" for name in own if name not in tensors)
    save_tensors(asked.out, {}, found | {name: own[name.removeprefix("encoder.")] for name in added})
    return Converted(asked.out, asked.style, len(found), left_out, added)


def translated(held: Held, asked: Asked) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The file's tensors by our names, and what was left out: no tensors, other networks, skipped, agreed to."""
    layout, which = asked.layout, held.which
    unwanted = {key for key in held.tensors if key.startswith(asked.leave_out)}
    refuse_idle(asked.leave_out, [*held.tensors, *held.stated])
    wanted = {key: tensor for key, tensor in held.tensors.items() if key not in unwanted}
    found, unknown = from_theirs(wanted, layout, which, held.file)
    if not found and which == "teacher" and any(map(layout.ours, wanted)):
        raise WeightsError(
            f"{held.file}: holds a student of style {asked.style}, and no teacher; use --weights student"
        )
    if not found:
        fitting = styles_of(held.tensors, which)
        advice = f"they are of style {' or '.join(fitting)}" if fitting else "is it the right file?"
        raise WeightsError(
            f"{held.file}: holds nothing of style {asked.style}; its first names are {few(held.tensors)}; {advice}"
        )
    elsewhere = [key for key in unknown if layout.inside(key, which) is None]
    skipped = [key for key in unknown if layout.skipped(key, which)]
    agreed([key for key in unknown if key not in {*elsewhere, *skipped}], asked, held.file)
    # Networks beside the one that is taken have thousands of tensors.
    networks = Counter(key.removeprefix("module.").split(".")[0] for key in elsewhere)
    beside = [f"{name}.* ({count})" for name, count in networks.items()]
    return found, (*held.others, *beside, *skipped, *(key for key in held.tensors if key in unwanted))


def as_configured(
    network: Network,
    spec: Mapping[str, Any],
    found: Mapping[str, Tensor],
    layout: Layout,
    held: Held,
    leave_out: tuple[str, ...] = (),
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """A network's tensors by our names, as the file, or the folder of Hugging Face's kind that it is in, says that they
    are meant: the classes in the order of ours, images normalised as it was trained on; and what to tell of that.

    spec: the network's. WeightsError where its classes have other names.
    """
    tensors = dict(found)
    told, notes = _classes_of(layout, held, leave_out)
    if told is not None and [*map(plain, told.names)] != [*map(plain, network.class_names)]:
        axes = {key: axis for key, axis in _class_axes(network, spec).items() if key in tensors}
        if axes:  # a classifier may be left out
            order = torch.tensor(_order(told, network.class_names))
            fitting = {key: axis for key, axis in axes.items() if tensors[key].shape[axis] == len(order)}
            tensors |= {key: tensors[key].index_select(axis, order) for key, axis in fitting.items()}
            names = ", ".join(told.names)
            notes.append(f"classes put into the recipe's order, by the names in {told.file.name}: {names}")
    images = hugging_face.normalisation(held.file) if layout.folder else None
    if images is not None:
        ours = network.state_dict()
        for name, colour in (("mean", images.mean), ("deviation", images.deviation)):
            normal = torch.tensor(colour).view(3, 1, 1)
            if not torch.allclose(normal, ours[name], atol=1e-3):
                tensors[name] = normal
                notes.append(f"{name} of images, by {hugging_face.PREPROCESSOR}: {', '.join(f'{c:g}' for c in colour)}")
    return tensors, tuple(notes)


@dataclass(frozen=True)
class Stated:
    """The names of a network's classes in its order, the file and the key that say them, and the way out where they are
    not the recipe's.
    """

    names: tuple[str, ...]
    file: Path
    key: str
    way: str


def _classes_of(layout: Layout, held: Held, leave_out: tuple[str, ...]) -> tuple[Stated | None, list[str]]:
    """What is said of the classes; and what to tell where nothing is."""
    file = held.file
    stated = {key: value for key, value in held.stated.items() if not key.startswith(leave_out)}
    if (told := open_mmlab.class_names(stated, file)) is not None:
        way = f"or --leave-out {open_mmlab.META} where they mean the same in the same order"
        return Stated(told[1], file, told[0], way), []
    if len(stated) < len(held.stated):
        return None, [f"what {file.name} says of its classes is left out: taken to be in the recipe's order"]
    if not layout.folder:
        return None, []
    if (names := hugging_face.class_names(file)) is None:
        return None, [f"nothing beside {file.name} names its classes: taken to be in the recipe's order"]
    way = "or write the recipe's names into id2label where they mean the same"
    return Stated(names, file.parent / hugging_face.CONFIG, "id2label", way), []


def _other_colours(held: Held, ours: Mapping[str, Sequence[int]], leave_out: tuple[str, ...]) -> tuple[str, ...]:
    """What to tell where a file's classes are shown in other colours than ours."""
    if any(key.startswith(leave_out) for key in held.stated):
        return ()
    told = open_mmlab.class_names(held.stated, held.file)
    theirs = {} if told is None else open_mmlab.colours(held.stated, [plain(name) for name in told[1]])
    other = [name for name, colour in ours.items() if theirs.get(plain(name), tuple(colour)) != tuple(colour)]
    return (f"pictures have the recipe's colours, not the file's PALETTE: {few(other)}",) if other else ()


def _class_axes(network: Network, spec: Mapping[str, Any]) -> dict[str, int]:
    """Our tensors that have a part for each class -> the axis of the parts: what is longer with one class more."""
    with torch.random.fork_rng(devices=[]):
        names = (*network.class_names, "one more")
        longer = build(NETWORKS, from_scratch(NETWORKS, spec, "network"), "network", class_names=names).state_dict()
    return {
        key: axis
        for key, tensor in network.state_dict().items()
        for axis, (side, other) in enumerate(zip(tensor.shape, longer[key].shape, strict=True))
        if side != other
    }


def _order(told: Stated, ours: Sequence[str]) -> list[int]:
    """Where each of our classes is among theirs, of the same names but for case, spaces, dashes and underscores."""
    theirs, where = told.names, f"{told.file}: {told.key}"
    known = {plain(name): place for place, name in enumerate(theirs)}
    only = [name for name in theirs if plain(name) not in {plain(one) for one in ours}]
    if lacking := [name for name in ours if plain(name) not in known]:
        raise WeightsError(
            f"{where}: the network's classes are not the recipe's: only there: {few(only) or 'none'}; only in the "
            f"recipe: {few(lacking)}; give a recipe on its classes, {told.way}"
        )
    if only or len(known) < len(theirs):
        raise WeightsError(
            f"{where}: {len(theirs)} classes, the recipe has {len(ours)}; only there: {few(only)}; give a recipe on "
            "its classes"
        )
    return [known[plain(name)] for name in ours]


def fill(
    network: Network, found: dict[str, Tensor], layout: Layout, file: Path, *, allow_missing: bool = False
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Loads `found` into the network; -> the names that stayed as they were (constants and counters, missing ones).

    WeightsError when anything is missing, unless that is allowed, or anything does not fit.
    """
    own = network.state_dict()
    for place, module in network.named_modules():
        if isinstance(module, Encoder):
            held = {key.removeprefix(f"{place}."): value for key, value in found.items() if key.startswith(f"{place}.")}
            check(module, held, family_of(module), file, allow_missing=allow_missing)
    added = tuple(key for key in own if key not in found and (is_constant(key) or key.endswith(COUNTER)))
    missing = tuple(key for key in own if key not in found and key not in added)
    theirs = {key: layout.theirs(key)[0] or key for key in own}
    surplus = [layout.theirs(key)[0] for key in found if key not in own]
    lacking = () if allow_missing else tuple(theirs[key] for key in missing)
    for what, names, more in (
        ("lacks", lacking, ", or --allow-missing to have them at random"),
        ("has besides", surplus, ""),
    ):
        if names:
            raise WeightsError(
                f"{file}: is not the recipe's network: it {what} {few(names)}; give a recipe with the "
                f"network that it holds, or change one with --set network.KEY=VALUE{more}"
            )
    shapes = [key for key, tensor in found.items() if tensor.shape != own[key].shape]
    if shapes:
        key = shapes[0]
        raise WeightsError(
            f"{file}: does not fit the recipe's network of {network.classes} classes: {theirs[key]} is "
            f"{list(found[key].shape)} instead of {list(own[key].shape)}, and {len(shapes) - 1} more are not; give a "
            "recipe with the classes and the network that it was trained on"
        )
    network.load_state_dict({**own, **found})
    return added, missing


def _cut_short(out: Path) -> bool:
    """Whether a folder holds no more than a conversion that was killed leaves."""
    return is_marked(out) and {path.name for path in out.iterdir()} <= {
        "recipe.yaml",
        "environment.json",
        "data.json",
        LOCK,
    }


def _refuse_taken_run(out: Path, recipe: Recipe, overwrite: bool) -> None:
    if out.suffix in PLAIN:
        raise RecipeError(f"--out {out}: our networks are kept in a run folder or a .safetensors file; name one")
    if (out / "recipe.yaml").exists() and not overwrite and not _cut_short(out):
        raise RunError(f"{out} already holds a run; use --overwrite to replace it, or another --out")
    runs.check_folder(out, recipe, resume=False, overwrite=True)


def ours(
    given: Path,
    out: Path,
    source: str | None,
    recipe: Recipe | None,
    agreement: tuple[runs.Which, tuple[str, ...], bool, bool, int | None],
    light: Path | None = None,
) -> Converted:
    """A checkpoint of the style of `source`, or the one that its names say, as a network or an encoder of ours.

    light: the file of what relights, for a recipe with a network that does.
    """
    if light is not None and (recipe is None or recipe.network.get("name") != "relit"):
        raise RecipeError(f"--light {light}: has no effect without a recipe whose network is relit; remove it")
    if source == translators.STYLE or (source is None and recipe is not None and translators.trains_translator(recipe)):
        done = _translator(given, Asked(out, translators.STYLE, *agreement), recipe)
        return replace(done, detected=source is None)
    if recipe is not None and not recipe.network:
        raise RecipeError(
            f"--recipe: method {recipe.method['name']} trains no network that a file of style {source} could fill; "
            "give another recipe"
        )
    if source is not None:
        _refuse_another_network(layout_named(source), source, recipe)
    held = opened(given, source, agreement[0])
    asked = Asked(out, source or style_of(held, recipe), *agreement)
    relights = recipe is not None and not asked.layout.encoder and recipe.network["name"] == "relit"
    if light is None and relights and not asked.allow_missing:
        raise RecipeError(
            "--light: needed, the recipe's network relights, which DANNet keeps in a file of its own "
            "(dannet_psp_light.pth); or --allow-missing to have that at random"
        )
    if relights and asked.layout.folder:
        raise RecipeError(
            f"--recipe: its network relights, which {asked.style} models do not; give one of what it is over"
        )
    if relights:
        lit = {} if light is None else read(_file_of(light, None)).tensors
        held = replace(held, tensors=held.tensors | {LIGHT + name: tensor for name, tensor in lit.items()})
        asked = replace(asked, relit=True)
    if asked.layout.encoder:
        done = _encoder(held, asked, asked.layout.encoder)
    elif out.suffix == ".safetensors" or runs.is_strange(out):  # the latter is refused
        done = _network(held, asked, recipe)
    else:
        with alone_in(out, "another process converts to {folder}"):
            done = _network(held, asked, recipe)
    return replace(done, detected=source is None)

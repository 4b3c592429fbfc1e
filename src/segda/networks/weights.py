"""Where an encoder starts from: `load_encoder_weights(encoder, where)`.

    scratch                  the random start it was built with
    organisation/name        a model on the Hugging Face hub, e.g. nvidia/mit-b0
    a file                   .safetensors, or .pth .pt .bin .ckpt: only tensors are read, no code in it runs
    a folder                 of Hugging Face's kind (model.safetensors), or a run (network.safetensors)

The names in a file may be those of any style in STYLES, alone or inside a whole network. What a file holds
besides the encoder is left out, and said so; an encoder that is not complete or of another size is an error.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from segda.errors import WeightsError
from segda.networks.encoders import ENCODERS, MiT

IN_FOLDER = ("model.safetensors", "network.safetensors", "pytorch_model.bin")
"""What is looked for in a folder, in this order."""

ON_HUB = ("model.safetensors", "pytorch_model.bin")
"""What is looked for in a model on the hub, in this order."""

PICKLES = (".pth", ".pt", ".bin", ".ckpt")

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")

PREFIX = re.compile(r"(module\.)?(model\.)?(backbone\.|segformer\.)?(encoder\.)?")
"""Where an encoder may sit in a whole network's names: mmsegmentation's, SegFormer's, ours."""

Names = dict[str, str | tuple[str, str]]

OURS: Names = {
    name: name
    for name in (
        "stages.S.patch_embeddings.proj",
        "stages.S.patch_embeddings.layer_norm",
        "stages.S.blocks.B.layernorm_before",
        "stages.S.blocks.B.attention.q_proj",
        "stages.S.blocks.B.attention.k_proj",
        "stages.S.blocks.B.attention.v_proj",
        "stages.S.blocks.B.attention.o_proj",
        "stages.S.blocks.B.attention.sequence_reduction.sequence_reduction",
        "stages.S.blocks.B.attention.sequence_reduction.layer_norm",
        "stages.S.blocks.B.layernorm_after",
        "stages.S.blocks.B.mlp.fc1",
        "stages.S.blocks.B.mlp.dwconv.dwconv",
        "stages.S.blocks.B.mlp.fc2",
        "stages.S.layer_norm",
    )
}

PUBLISHED: Names = {
    "patch_embeddings.S.proj": "stages.S.patch_embeddings.proj",
    "patch_embeddings.S.layer_norm": "stages.S.patch_embeddings.layer_norm",
    "block.S.B.layer_norm_1": "stages.S.blocks.B.layernorm_before",
    "block.S.B.attention.self.query": "stages.S.blocks.B.attention.q_proj",
    "block.S.B.attention.self.key": "stages.S.blocks.B.attention.k_proj",
    "block.S.B.attention.self.value": "stages.S.blocks.B.attention.v_proj",
    "block.S.B.attention.output.dense": "stages.S.blocks.B.attention.o_proj",
    "block.S.B.attention.self.sr": "stages.S.blocks.B.attention.sequence_reduction.sequence_reduction",
    "block.S.B.attention.self.layer_norm": "stages.S.blocks.B.attention.sequence_reduction.layer_norm",
    "block.S.B.layer_norm_2": "stages.S.blocks.B.layernorm_after",
    "block.S.B.mlp.dense1": "stages.S.blocks.B.mlp.fc1",
    "block.S.B.mlp.dwconv.dwconv": "stages.S.blocks.B.mlp.dwconv.dwconv",
    "block.S.B.mlp.dense2": "stages.S.blocks.B.mlp.fc2",
    "layer_norm.S": "stages.S.layer_norm",
}

OFFICIAL: Names = {
    "patch_embedS.proj": "stages.S.patch_embeddings.proj",
    "patch_embedS.norm": "stages.S.patch_embeddings.layer_norm",
    "blockS.B.norm1": "stages.S.blocks.B.layernorm_before",
    "blockS.B.attn.q": "stages.S.blocks.B.attention.q_proj",
    # One matrix: the first half of its rows makes keys, the second values.
    "blockS.B.attn.kv": ("stages.S.blocks.B.attention.k_proj", "stages.S.blocks.B.attention.v_proj"),
    "blockS.B.attn.proj": "stages.S.blocks.B.attention.o_proj",
    "blockS.B.attn.sr": "stages.S.blocks.B.attention.sequence_reduction.sequence_reduction",
    "blockS.B.attn.norm": "stages.S.blocks.B.attention.sequence_reduction.layer_norm",
    "blockS.B.norm2": "stages.S.blocks.B.layernorm_after",
    "blockS.B.mlp.fc1": "stages.S.blocks.B.mlp.fc1",
    "blockS.B.mlp.dwconv.dwconv": "stages.S.blocks.B.mlp.dwconv.dwconv",
    "blockS.B.mlp.fc2": "stages.S.blocks.B.mlp.fc2",
    "normS": "stages.S.layer_norm",
}

STYLES: dict[str, tuple[Names, int]] = {
    "our": (OURS, 0),
    "published Hugging Face": (PUBLISHED, 0),
    "official MiT": (OFFICIAL, 1),
}
"""Names of modules (S stage, B block) -> ours, and the number that the style gives to the first stage."""


def load_encoder_weights(encoder: MiT, where: str) -> str:
    """Fill `encoder` from `where` (see the module); a line on what came from where, or WeightsError."""
    if where == "scratch":
        return f"encoder {encoder.name}: random start (weights: scratch)"
    file = find(where)
    tensors = read_tensors(file)
    style, fitting, ignored = translate(tensors, file)
    check(encoder, fitting, file)
    encoder.load_state_dict(fitting)
    used = len(tensors) - len(ignored)
    origin = f"{where} ({file.name})" if file != Path(where).expanduser() else where
    line = f"encoder {encoder.name}: {used} tensors from {origin}, {style} names"
    if ignored:
        parts = Counter(key.split(".")[0] if "." in key else key for key in ignored)
        line += f"; ignored {len(ignored)} others ({few(f'{part}: {n}' for part, n in parts.items())})"
    return line


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
            f"network.weights: no file or folder {where}; give one, a hub name such as nvidia/mit-b0, or 'scratch'"
        )
    return from_hub(where)


def from_hub(name: str) -> Path:
    """The file of a model on the hub: the cached one, or downloaded; WeightsError when it cannot be had."""
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    for file in ON_HUB:
        try:
            return Path(hf_hub_download(name, file, local_files_only=True))
        except LocalEntryNotFoundError:
            continue
    # Asking what there is fails at once without a network; a download would try again for half a minute.
    # Every Exception: the errors of the hub's HTTP client are of another class in each of its versions.
    try:
        there = {sibling.rfilename for sibling in HfApi().model_info(name, timeout=10).siblings or ()}
        file = next((file for file in ON_HUB if file in there), None)
        if file:
            return Path(hf_hub_download(name, file))
    except Exception as error:
        raise WeightsError(
            f"network.weights: {name} is no file or folder here, and cannot be had from the Hugging Face hub "
            f"({first_line(error)}); give the path of a downloaded file, or 'scratch'"
        ) from error
    raise WeightsError(
        f"network.weights: {name} on the Hugging Face hub has none of {', '.join(ON_HUB)}; "
        "download its weights yourself and give the path, or 'scratch'"
    )


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Names and tensors of a file, out of a `state_dict` or `model` wrapper; nothing in it is executed."""
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(file)
        except (SafetensorError, OSError) as error:
            raise WeightsError(
                f"{file}: not a readable safetensors file ({first_line(error)}); fetch or copy it again"
            ) from error
    if file.suffix not in PICKLES:
        raise WeightsError(f"{file}: not a kind of file that holds weights; known: .safetensors, {', '.join(PICKLES)}")
    try:
        with warnings.catch_warnings():
            # Of pickles that torch did not write. They are read or refused like the others.
            warnings.filterwarnings("ignore", "Detected pickle protocol")
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
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{file}: not readable ({first_line(error)}); fetch or copy it again") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(held, Mapping) and isinstance(held.get(wrapper), Mapping):
            held = held[wrapper]
    if not isinstance(held, Mapping) or not any(isinstance(value, Tensor) for value in held.values()):
        raise WeightsError(f"{file}: holds no tensors by name; give a state_dict")
    return {str(key): value for key, value in held.items() if isinstance(value, Tensor)}


def translate(tensors: Mapping[str, Tensor], file: Path) -> tuple[str, dict[str, Tensor], list[str]]:
    """Tensors by foreign names -> (style, the encoder's tensors by our names, the keys that are none of it).

    The style is the one that recognises most; keys of another prefix (a second network in it) are left out.
    """
    best: tuple[str, dict[str, Tensor], list[str]] = ("", {}, list(tensors))
    for style, (names, first) in STYLES.items():
        found: dict[str, Tensor] = {}
        ignored = []
        for key, tensor in tensors.items():
            ours = our_names(key, names, first)
            parts = tensor.chunk(len(ours)) if ours and tensor.ndim else ()
            if len(parts) != len(ours) or not ours:
                ignored.append(key)
                continue
            for name, part in zip(ours, parts, strict=True):
                if name in found:
                    raise WeightsError(
                        f"{file}: {key} is there twice, under different prefixes; save one encoder alone"
                    )
                found[name] = part
        if len(found) > len(best[1]):
            best = (style, found, ignored)
    if not best[1]:
        raise WeightsError(f"{file}: holds no MiT encoder; its first names are {few(tensors)}")
    return best


def our_names(key: str, names: Names, first: int) -> tuple[str, ...]:
    """`backbone.block1.0.attn.kv.bias` -> our names of what it holds (here two); () if unknown."""
    module, _, parameter = key[PREFIX.match(key).end() :].rpartition(".")
    for theirs, ours in names.items():
        pattern = re.escape(theirs).replace("S", r"(?P<S>\d+)").replace("B", r"(?P<B>\d+)")
        if found := re.fullmatch(pattern, module):
            places = found.groupdict()
            places["S"] = str(int(places["S"]) - first)
            return tuple(
                ".".join(places.get(part, part) for part in name.split(".")) + f".{parameter}"
                for name in ((ours,) if isinstance(ours, str) else ours)
            )
    return ()


def check(encoder: MiT, tensors: Mapping[str, Tensor], file: Path) -> None:
    """WeightsError unless `tensors` are all of the encoder's, in its shapes, finite, and no more."""
    wanted = encoder.state_dict()
    missing = [name for name in wanted if name not in tensors]
    surplus = [name for name in tensors if name not in wanted]
    shapes = [
        f"{name} {list(tensors[name].shape)} instead of {list(wanted[name].shape)}"
        for name in wanted
        if name in tensors and tensors[name].shape != wanted[name].shape
    ]
    for what, names in (("another shape", shapes), ("missing", missing), ("too many", surplus)):
        if names:
            size = size_of(tensors)
            advice = (
                f"it is a MiT-{size.upper()} file: set network.encoder: {size}" if size else "is it the right file?"
            )
            raise WeightsError(
                f"{file}: does not fit encoder {encoder.name}: {len(names)} tensors {what}: {few(names)}; {advice}"
            )
    broken = [name for name, tensor in tensors.items() if not tensor.is_floating_point() or not tensor.isfinite().all()]
    if broken:
        raise WeightsError(
            f"{file}: {len(broken)} tensors are not finite numbers: {few(broken)}; fetch or copy it again"
        )


def size_of(tensors: Mapping[str, Tensor]) -> str:
    """The encoder row that has these tensors' blocks and channels, or ''."""
    blocks = {
        tuple(map(int, found)) for name in tensors for found in re.findall(r"stages\.(\d+)\.blocks\.(\d+)\.", name)
    }
    depths = tuple(sum(stage == s for stage, _ in blocks) for s in range(4))
    norms = [tensors.get(f"stages.{s}.layer_norm.weight") for s in range(4)]
    channels = tuple(0 if norm is None else norm.numel() for norm in norms)
    return next((name for name, row in ENCODERS.items() if (row.depths, row.channels) == (depths, channels)), "")


def few(names) -> str:
    """The first three names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")

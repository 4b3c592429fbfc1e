"""`segda convert --to`: our networks as other code bases keep them, state dicts and folders of Hugging Face's kind."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from segda import run as runs
from segda.conversion import translators
from segda.conversion.asked import PLAIN, Asked, Converted, agreed, is_constant, refuse_idle, refuse_taken
from segda.errors import RecipeError, RunError, WeightsError
from segda.ground.alone import LOCK, alone_in
from segda.ground.atomic import atomic_write, cannot_write, emptied
from segda.ground.safe_yaml import json_values
from segda.networks.encoders.mit import MITS
from segda.networks.weights.archives import write_archive
from segda.networks.weights.files import read_facts, save_tensors
from segda.networks.weights.hugging_face import CONFIG, PREPROCESSOR
from segda.networks.weights.layouts import LIGHT, Layout, relit_in, to_theirs
from segda.networks.weights.load import read_tensors

WEIGHTS = "model.safetensors"


def back(given: Path, asked: Asked) -> Converted:
    """Ours, into a state dict as their code reads it, or a folder for `from_pretrained`. What relights goes into a
    second file, OUT_light.pth.
    """
    if asked.style == translators.STYLE:
        return translators.back(given, asked)
    layout = asked.layout
    if asked.allow_missing:
        raise RecipeError("--allow-missing has no effect with --to: our own networks lack nothing; remove it")
    if layout.folder:
        refuse_taken_folder(asked.out, asked.overwrite)
    elif asked.out.suffix not in PLAIN:
        raise RecipeError(
            f"--out {asked.out}: {asked.style} code reads a state dict of torch; write a file ending in .pth"
        )
    else:
        refuse_taken(asked.out, asked.overwrite)
    path = given
    if given.is_dir():
        runs.load_recipe_of(given)
        path = runs.network_path(given, asked.weights, asked.step)
    elif asked.step is not None:
        raise RecipeError(f"--step {asked.step}: {given} is a file; give the run folder whose snapshot it shall be")
    spec, class_names = facts_in(path)
    if not layout.holds(spec):
        has = f"{spec['name']} with decoder {spec['decoder']}" if layout.decoder and "decoder" in spec else spec["name"]
        raise WeightsError(
            f"{path}: holds {has}, but {asked.style} checkpoints are {layout.network}; choose another style"
        )
    light = None
    if spec is not relit_in(spec):
        if layout.folder:
            raise WeightsError(f"{path}: holds relit, for which {asked.style} has no place; choose a .pth style")
        asked = replace(asked, relit=True)
        layout = asked.layout
        light = asked.out.with_stem(f"{asked.out.stem}_light")
        refuse_taken(light, asked.overwrite)
    if layout.folder and spec["encoder"] not in MITS:
        raise WeightsError(
            f"{path}: has encoder {spec['encoder']}, but {asked.style} models have a MiT; choose a .pth style"
        )
    tensors = read_tensors(path)
    found, unknown = to_theirs(tensors, layout)
    constant = tuple(key for key in unknown if is_constant(key))
    others = [key for key in unknown if not is_constant(key)]
    refuse_idle(asked.leave_out, others)
    left_out = agreed(others, asked, path)
    taken = len(tensors) - len(left_out) - len(constant)
    if layout.folder:
        _folder(asked.out, found, spec, class_names, {key: tensors[key] for key in constant}, asked)
        return Converted(asked.out, asked.style, taken, left_out)
    files = {} if light is None else {light: {key: found.pop(key) for key in [*found] if key.startswith(LIGHT)}}
    for out, content in (files | {asked.out: found}).items():
        with atomic_write(out) as partial, partial.open("wb") as file:
            write_archive(file, {key.removeprefix(LIGHT): one.contiguous() for key, one in content.items()}, out)
    notes = () if light is None else (f"what relights: {light}",)
    # Constants of the network are elsewhere in their code.
    return Converted(asked.out, asked.style, taken, constant + left_out, notes=notes)


def _folder(
    out: Path,
    tensors: Mapping[str, Tensor],
    spec: Mapping[str, Any],
    class_names: list[str],
    constants: Mapping[str, Tensor],
    asked: Asked,
) -> None:
    try:
        partial = out.with_name(f".{out.name}.converted")  # with the same name the next time, when it goes
        with alone_in(out, "another process converts to {folder}"), emptied(partial):
            write_segformer(partial, tensors, spec, class_names, constants, asked.layout)
            (out / CONFIG).unlink(missing_ok=True)  # an older one says nothing of the new weights
            for name in (PREPROCESSOR, WEIGHTS, CONFIG):
                (partial / name).replace(out / name)
    except OSError as error:
        raise cannot_write(out, error) from error


def write_segformer(
    folder: Path,
    tensors: Mapping[str, Tensor],
    spec: Mapping[str, Any],
    class_names: Sequence[str],
    constants: Mapping[str, Tensor],
    layout: Layout,
    **more: Any,
) -> None:
    """config.json, the weights, and the normalisation of images, all of them or none. more: further keys of the
    configuration.
    """
    from transformers.models.segformer.configuration_segformer import SegformerConfig

    row = MITS[spec["encoder"]]
    config = SegformerConfig(
        hidden_sizes=list(row.channels),
        depths=list(row.depths),
        num_attention_heads=list(row.heads),
        drop_path_rate=spec["drop_path"],
        id2label=dict(enumerate(class_names)),
        label2id={name: i for i, name in enumerate(class_names)},
        **more,
    )
    config.architectures = ["SegformerModel"]
    if layout.encoder is None:
        config.architectures = ["SegformerForSemanticSegmentation"]
        config.decoder_hidden_size = len(tensors["decode_head.batch_norm.weight"])
        config.classifier_dropout_prob = spec["dropout"]
    images = {
        "image_processor_type": "SegformerImageProcessor",
        "do_resize": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": constants["mean"].flatten().tolist(),
        "image_std": constants["deviation"].flatten().tolist(),
        "do_reduce_labels": False,
    }
    config.save_pretrained(folder)
    (folder / PREPROCESSOR).write_text(json.dumps(images, indent=2) + "\n", encoding="utf-8")
    save_tensors(folder / WEIGHTS, {}, tensors)


def refuse_taken_folder(out: Path, overwrite: bool) -> None:
    """RunError unless a folder of Hugging Face's kind can be written at `out`."""
    if out.suffix in (*PLAIN, ".safetensors"):
        raise RecipeError(f"--out {out}: Hugging Face keeps a model in a folder; name one")
    # Without its configuration, which comes last, it is what a killed call has left.
    if not out.exists() or (out.is_dir() and {path.name for path in out.iterdir()} <= {PREPROCESSOR, WEIGHTS, LOCK}):
        return
    if not (out / CONFIG).is_file() or not (out / WEIGHTS).is_file():
        raise RunError(f"{out} exists and is no folder of Hugging Face's kind; choose another --out")
    if not overwrite:
        raise RunError(f"{out} exists; use --overwrite, or another --out")


def facts_in(path: Path) -> tuple[dict[str, Any], list[str]]:
    """(the network, the names of its classes) that a .safetensors file of ours says it holds."""
    try:
        facts = read_facts(path)
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{path}: not a readable safetensors file ({error}); give a run folder or network.safetensors"
        ) from error
    if "network" not in facts:
        raise WeightsError(f"{path}: does not say which network it holds; give a run folder or its network.safetensors")
    try:
        spec, names = dict(json_values(facts["network"])), list(json_values(facts["class_names"]))
    except (KeyError, ValueError, TypeError) as error:
        raise WeightsError(f"{path}: what it says of its network is damaged ({error}); give a run folder") from error
    return spec, names

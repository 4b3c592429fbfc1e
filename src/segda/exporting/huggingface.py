"""A folder of Hugging Face's kind: config.json, model.safetensors and, of SegFormers, preprocessor_config.json.

Networks that the library `transformers` has are written so that AutoModelForSemanticSegmentation reads them: a MiT with
SegFormer's decoder. Of any other network the folder holds its tensors, by our names, and in config.json its block of a
recipe, from which segda builds it; no code is in it, and none is needed with `trust_remote_code`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segda.conversion.asked import is_constant
from segda.conversion.to_theirs import WEIGHTS, write_segformer
from segda.errors import WeightsError
from segda.exporting.about import NAME, About, Runner, about_from
from segda.ground.safe_yaml import read_json
from segda.networks.encoders.mit import MITS
from segda.networks.network import Network
from segda.networks.weights.files import save_tensors
from segda.networks.weights.hugging_face import CONFIG, normalisation
from segda.networks.weights.layouts import LAYOUTS, to_theirs
from segda.run import built_from

LAYOUT = "huggingface"
SEGFORMER = "segformer"
"""What `transformers` calls the one kind that it reads."""


def write_folder(network: Network, about: About, folder: Path, _: Sequence[np.ndarray]) -> None:
    tensors, layout = network.state_dict(), LAYOUTS[LAYOUT]
    if layout.holds(about.network) and about.network["encoder"] in MITS:
        theirs, _unknown = to_theirs(tensors, layout)
        constants = {key: value for key, value in tensors.items() if is_constant(key)}
        more: dict[str, Any] = {NAME: about.to_json()}
        write_segformer(folder, theirs, about.network, tuple(about.classes), constants, layout, **more)
        return
    config = {
        "model_type": NAME,
        "id2label": dict(enumerate(about.classes)),
        "label2id": {name: place for place, name in enumerate(about.classes)},
        NAME: about.to_json(),
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_tensors(folder / WEIGHTS, {}, tensors)


def told_folder(folder: Path) -> str | None:
    config = read_json(folder / CONFIG)
    return config.get(NAME) if isinstance(config, dict) else None


def open_folder(folder: Path) -> tuple[About, Runner]:
    about = about_from(told_folder(folder), folder)
    kind = read_json(folder / CONFIG).get("model_type")
    if kind not in (NAME, SEGFORMER):
        raise WeightsError(f"{folder}: model_type {str(kind)!r:.40} is not of segda export; export it again")
    logits = ours(folder, about) if kind == NAME else theirs(folder)

    def run(images: np.ndarray) -> np.ndarray:
        image = torch.from_numpy(images).float()
        with torch.no_grad():
            found = logits(image / 255 if about.input == "uint8" else image)
            said = found.argmax(1).to(torch.uint8) if about.output == "ids" else found.softmax(1)
        return said.numpy()

    return about, run


def ours(folder: Path, about: About) -> Any:
    """RGB in [0, 1] -> logits at the image's size, of the network that segda builds."""
    return built_from(folder / WEIGHTS, about.network, tuple(about.classes)).eval().infer


def theirs(folder: Path) -> Any:
    """The same of the library's own class."""
    from transformers import SegformerForSemanticSegmentation

    # Of a stranger's folder: no class that config.json names, nothing from the hub, and no pickle.
    model = SegformerForSemanticSegmentation.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, attn_implementation="eager"
    ).eval()
    told = normalisation(folder / WEIGHTS)
    if told is None:
        raise WeightsError(f"{folder}: does not say how images are normalised; export it again")
    mean, deviation = (torch.tensor(colour).view(3, 1, 1) for colour in (told.mean, told.deviation))

    def infer(image: Tensor) -> Tensor:
        cells = model(pixel_values=(image - mean) / deviation).logits
        return F.interpolate(cells, image.shape[-2:], mode="bilinear", align_corners=False)

    return infer

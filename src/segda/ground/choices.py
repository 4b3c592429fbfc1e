"""The words that a user chooses among, where several commands ask for them. No library stands behind this file."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

from segda.errors import nearest

DeviceName: TypeAlias = str
"""One of DEVICES, or one of several: `cuda:1`."""

DEVICES = ("auto", "cpu", "cuda", "mps")


def unknown_device(name: str) -> str:
    """What is wrong with the name of a device; nothing where it is one."""
    if name in DEVICES or re.fullmatch(r"cuda:\d{1,3}", name):
        return ""
    return f"unknown device{nearest(name, DEVICES)}; of several, cuda:1 is the second"


PrecisionName = Literal["auto", "32", "bf16", "16"]

Weights = Literal["student", "teacher"]
"""Whose weights, of a run that has both."""

AnyWeights = Literal["student", "teacher", "ema"]
"""Whose weights, of other code's files, where most call the teacher's the mean of a network's weights."""

Mean = Literal["logits", "probabilities"]
"""What of several views or networks is averaged."""

Softmax = Literal["before", "after"]
"""Whether logits become probabilities before or after they are upsampled to an image's size."""

Ids = Literal["train", "label"]
"""Train ids: the classes in the network's order. Label ids: Cityscapes' own, 7 road to 33 bicycle."""

Domain = Literal["target", "source"]
"""What images are to look like."""

OnBadImage = Literal["stop", "skip"]
"""At an image that cannot be used: stop, or go on without it."""

Criterion = Literal[
    "entropy", "mutual-information", "density", "nuclear-norm", "agreement", "mixval", "transfer-score", "source"
]
"""By what a network is chosen without target labels."""

LoggerName = Literal["tensorboard", "wandb", "mlflow"]
"""Who else is told the numbers of a training."""

OnlineName = Literal["tent", "cotta", "batchnorm"]
"""How a network adapts itself to a stream of images."""

PresetName = Literal["quick", "standard", "best"]
"""How long somebody's own images are learnt, and by how large a network."""

PaletteName = Literal["own", "safe"]
"""The classes' own colours, or those that the colour-blind tell apart."""

What = Literal["methods", "networks", "benchmarks", "datasets", "recipes", "sweeps"]
"""What `segda list` lists."""

ExportTo = Literal["onnx", "torch", "openvino", "huggingface"]
"""The formats of exported networks."""

ExportPrecision = Literal["32", "16", "int8"]
"""The type of an exported network's weights."""

GivenAs = Literal["uint8", "float"]
"""How an exported network takes its images: RGB from 0 to 255, or from 0 to 1."""

Said = Literal["ids", "probabilities"]
"""What an exported network says of each pixel: its class, or the probability of each."""

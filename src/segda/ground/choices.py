"""The words that a user chooses among, where several commands ask for them. No library stands behind this file."""

from __future__ import annotations

from typing import Literal

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
PrecisionName = Literal["auto", "32", "bf16", "16"]

Weights = Literal["student", "teacher"]
"""Whose weights, of a run that has both."""

AnyWeights = Literal["student", "teacher", "ema"]
"""Whose weights, of other code's files, where most call the teacher's the mean of a network's weights."""

Mean = Literal["logits", "probabilities"]
"""What of several views or networks is averaged."""

Ids = Literal["train", "label"]
"""Train ids: the classes in the network's order. Label ids: Cityscapes' own, 7 road to 33 bicycle."""

OnBadImage = Literal["stop", "skip"]
"""At an image that cannot be used: stop, or go on without it."""

What = Literal["methods", "networks", "benchmarks", "datasets", "recipes", "sweeps"]
"""What `segda list` lists."""

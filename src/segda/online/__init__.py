"""Methods that adapt a trained network to a stream of images while it predicts them. Without labels, one image a step.

Each has the settings of `online.yaml`, where their sources stand, and looks at an image by its `eye`, with gradients;
`told(sight)` learns from what was seen and returns the views that are the prediction; `reset()` forgets all that was
learnt.
"""

from __future__ import annotations

from segda.online.batchnorm import BatchNorm
from segda.online.cotta import CoTTA
from segda.online.online import Online
from segda.online.tent import Tent

ONLINE: dict[str, type[Online]] = {"tent": Tent, "cotta": CoTTA, "batchnorm": BatchNorm}

"""Networks as they were published, but of few channels, for what does not depend on how many they have.

tests/conformance/architectures.py, dannet.py and refinenet.py have the published ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from unittest.mock import patch

from segda.networks import pspnet
from segda.networks.encoder_decoder import DECODERS
from segda.networks.encoders import residual
from segda.networks.encoders.table import ENCODERS

CHANNELS = {"channels": 16, "fine": 8, "inner": 8}
"""Of decoders."""

PLANES = (16, 32, 64, 128)
"""Of a residual encoder's stages. ResNeXt has 32 groups in the first of them."""

DEPTHS = (1, 2, 1, 2)
"""Blocks of the stages: of both kinds, in a dilated stage and in one that is not."""


@contextmanager
def narrow() -> Iterator[None]:
    """A block in which all decoders, PSPNet and the residual encoders are built narrow, and these with few blocks."""
    maps = tuple(residual.WIDER * planes for planes in PLANES)
    decoders = {
        name: replace(row, settings={key: CHANNELS.get(key, value) for key, value in row.settings.items()})
        for name, row in DECODERS.items()
    }
    with ExitStack() as changes:
        changes.enter_context(patch.dict(DECODERS, decoders))
        changes.enter_context(patch.object(pspnet, "CHANNELS", CHANNELS["channels"]))
        changes.enter_context(patch.multiple(residual, PLANES=PLANES, CHANNELS=maps))
        rows = {name: replace(size, depths=DEPTHS) for name, size in residual.RESIDUALS.items()}
        changes.enter_context(patch.dict(residual.RESIDUALS, rows))
        encoders = {name: replace(ENCODERS[name], channels=maps) for name in rows}
        changes.enter_context(patch.dict(ENCODERS, encoders))
        yield

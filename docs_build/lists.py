"""What there is: the tables of `segda list`, and of the parts of networks, made of the tables in the code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from docs_build.marks import code, safe, table
from segda.data.labels.spaces import SPACES
from segda.ground.choices import What
from segda.networks.encoder_decoder import DECODERS
from segda.networks.encoders.table import ENCODERS
from segda.reporting.listing import CLASSES, ROWS, TITLES

HEAD = """# What there is

Made from the tables in the code; `segda list` prints most of them.

"""

NAMES: dict[What, str] = {
    "methods": "Methods",
    "networks": "Networks",
    "benchmarks": "Benchmarks",
    "recipes": "Recipes",
    "datasets": "Data sets",
    "sweeps": "Sweeps",
}
"""What `segda list` takes -> the title here."""


def page() -> str:
    """The page, in Markdown."""
    text = HEAD
    for what, title in NAMES.items():
        text += f"## {title}\n\n{_table(TITLES[what], ROWS[what]())}\n"
        if what in CLASSES:
            name, rows = CLASSES[what]
            text += f"Classes that a block can name:\n\n{_table((name, 'settings ([optional])'), rows())}\n"
    encoders = [
        (name, _numbers(row.channels), _numbers(row.strides), str(row.smallest), str(row.multiple), row.family or "-")
        for name, row in ENCODERS.items()
    ]
    titles = ("network.encoder", "channels", "strides", "smallest side", "sides are multiples of", "weights' family")
    text += "## Encoders\n\nOf network `encoder_decoder`; other networks take some of them.\n\n"
    text += f"{_table(titles, encoders)}\n"
    decoders = [(name, row.build.__name__, ", ".join(row.heads)) for name, row in DECODERS.items()]
    text += f"## Decoders\n\n{_table(('network.decoder', 'class', 'heads'), decoders)}\n"
    spaces = [(name, str(len(space.classes)), ", ".join(space.classes)) for name, space in SPACES.items()]
    return text + f"## Label spaces\n\n{_table(('data.space', 'classes', 'names'), spaces)}\n"


def _numbers(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return table([safe(title) for title in titles], [(code(name), *map(safe, rest)) for name, *rest in rows])

"""What follows from the types of all methods and networks: kept in derived.json, since to ask them is to import torch.

    schema     of recipes, see schema.py
    methods    name -> its settings, as `segda list` shows them; and so networks
    recipes    name -> those blocks of a shipped recipe that checking changes: numbers of another type, and the
               defaults of blocks inside them

`python tests/recipes/test_derived.py` writes the file; as a test it fails where the file is not what the types say.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from segda.ground.safe_yaml import read_json
from segda.recipes.blocks import FOLDER

FILE = FOLDER / "derived.json"


@cache
def derived() -> dict[str, Any]:
    """The values in the file."""
    return read_json(FILE)

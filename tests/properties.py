"""What must hold of any input, however it came about: test_fuzz.py tries a few dozen inputs of each, benchmarks/fuzz.py
as many as there is time for.

Whatever is read is either read, or refused by an error of ours in one line.
"""

from __future__ import annotations

from drawn import Property
from properties_files import FILES
from properties_numbers import NUMBERS
from properties_texts import TEXTS

PROPERTIES: dict[str, Property] = {**FILES, **TEXTS, **NUMBERS}

"""Any input is read or refused: a few dozen inputs of each property; benchmarks/fuzz.py tries as many as one likes."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from properties import PROPERTIES

# The same inputs in each run: what these find is found once, and the benchmark looks for more.
FEW = settings(max_examples=25, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", PROPERTIES)
def test_of_any_input(name):
    function, strategies = PROPERTIES[name]

    @FEW
    @given(st.tuples(*strategies))
    def holds(drawn):
        function(*drawn)

    holds()

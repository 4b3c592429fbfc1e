"""`compile: true`: which passes torch compiles, that steps and files are the same, and where it is refused."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from conftest import small_recipe
from ranks import WITHOUT_BATCH_NORM
from segda.errors import RecipeError
from segda.training import assembly
from segda.training.compiling import compile_networks

# torch's compiler looks at the gradient of each tensor that it meets, and makes functions to look into them.
pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),
    pytest.mark.filterwarnings("ignore:<class 'torch.autograd.function.Function'> should not be instantiated"),
]


@pytest.fixture
def plain(monkeypatch) -> None:
    """torch's compiler makes graphs and runs them as they are, operation by operation."""
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))


def test_a_compiled_training_takes_the_same_steps(camvid, plain):
    recipe = small_recipe(camvid, "daformer").override("evaluate.data=[]", "data.batch=1", WITHOUT_BATCH_NORM)
    learnt = []
    for compiled in (False, True):
        training = assembly.assemble(recipe, camvid, None)
        if compiled:
            compile_networks(training.method)
        (drawn,) = training.batches(1, 0)
        learnt.append((training.step(drawn), training.method.state_dict()))
    (terms, state), (compiled_terms, compiled_state) = learnt
    assert compiled_terms.keys() == terms.keys()
    assert all(torch.equal(value, compiled_terms[name]) for name, value in terms.items())
    assert compiled_state.keys() == state.keys()
    assert all(torch.equal(value, compiled_state[name]) for name, value in state.items() if torch.is_tensor(value))
    counted = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert counted >= 3, "the student's forward, the teacher's infer and the start's features are compiled"


def test_a_processor_refuses_it_before_anything_is_read(camvid):
    recipe = small_recipe(camvid).override("compile=true")
    with pytest.raises(RecipeError, match="compile: true is for accelerators; .*Remove it, or set device: cuda"):
        assembly.assemble(recipe, camvid / "nowhere", None)

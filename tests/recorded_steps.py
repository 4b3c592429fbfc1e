"""A recorded training step beside ours: the gradient of each term, weights and statistics after the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest
import torch
from torch import Tensor

from segda.methods.method import Method
from segda.networks.network import Network
from segda.scene import Batch

# Relative, by step, as the READMEs of the recorded sets suggest: some ten times what the authors' own code differs by
# between float32 and float64 (norms of gradients 6e-5, 8e-4, 3e-3, of what one term adds 6e-5, 3e-3, 4e-3).
GRADIENTS = (1e-3, 1e-2, 2e-2)
# The same of the sum |weight - start|, 2e-4 in the first step.
MOVED = (2e-3, 1e-2, 2e-2)
SUMS = 1e-4
FIRST = (2e-5, 2e-4, 5e-4)
"""Absolute, by step, of the first values of weights and statistics: at first a third of the step that AdamW takes with
the smaller of the two rates, so that a weight that goes the other way is seen."""

STRAY = 1
"""So many of the first values may: where a gradient is all but 0, AdamW's first step has the sign of its rounding."""

Names = Callable[[str], Sequence[str]]
"""Their name -> ours: two where their keys and values are one matrix."""


class Recorder:
    """Takes the gradients of a method's terms while it trains, and compares with one recorded step after the other."""

    def __init__(self, method: Method, student: Network, names: Names):
        self.student, self.names = student, names
        self.start = {name: weight.detach().clone() for name, weight in student.named_parameters()}
        self.gradients: list[dict[str, Tensor]] = []
        step = method.step

        def watched(batch: Batch, t: int) -> Iterator[dict[str, Tensor]]:
            for terms in step(batch, t):
                learned = [term for term in terms.values() if term.requires_grad]
                alone = [self._gradient(term) for term in learned[1:]]
                before = self._taken()
                yield terms
                rest = {name: grad - before[name] for name, grad in self._taken().items()}
                for one in alone:
                    rest = {name: grad - one[name] for name, grad in rest.items()}
                self.gradients += [rest, *alone]

        method.step = watched

    def _gradient(self, term: Tensor) -> dict[str, Tensor]:
        weights = dict(self.student.named_parameters())
        found = torch.autograd.grad(
            term, list(weights.values()), retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return dict(zip(weights, found, strict=True))

    def _taken(self) -> dict[str, Tensor]:
        """The gradient so far."""
        weights = dict(self.student.named_parameters())
        return {
            name: torch.zeros_like(weight) if weight.grad is None else weight.grad.clone()
            for name, weight in weights.items()
        }

    def compare(self, t: int, theirs: Mapping, teachers: Mapping[str, Network]) -> None:
        """With step t, just made. teachers: the prefix of what is recorded of each -> its network."""
        increments = theirs["grad_increment_norms"]
        assert len(self.gradients) == len(increments)
        for which, (ours, recorded) in enumerate(zip(self.gradients, increments, strict=True)):
            self._compare_norms(ours, recorded, t, f"term {which}")
        self.gradients.clear()
        self._compare_norms(self._taken(), theirs["grad_norms_after_each_backward"][-1], t, "all terms")
        moved = {name: weight.detach() - self.start[name] for name, weight in self.student.named_parameters()}
        for key, moves in theirs["update_abs_sum"].items():
            assert self._sum(moved, key) == pytest.approx(moves, rel=MOVED[t]), (t, key)
        for part, network in ({"": self.student} | dict(teachers)).items():
            state = network.state_dict()
            for key, row in (theirs[f"{part}params_after"] | theirs[f"{part}buffers_after"]).items():
                assert self._sum(state, key) == pytest.approx(row["abs_sum"], rel=SUMS), (t, part, key)
                first = torch.cat([state[name].flatten()[:8] for name in self.names(key)])[:8]
                apart = (first.double() - torch.tensor(row["first8"], dtype=torch.float64)).abs() > FIRST[t]
                assert apart.sum() <= STRAY * (len(apart) > 1), (t, part, key)

    def _compare_norms(self, ours: Mapping[str, Tensor], theirs: Mapping[str, float], t: int, what: str) -> None:
        norms = {name: torch.linalg.vector_norm(grad.detach(), dtype=torch.float64) for name, grad in ours.items()}
        for key, norm in theirs.items():
            names = tuple(ours) if key == "__total__" else self.names(key)
            found = torch.stack([norms[name] for name in names])
            assert found.norm().item() == pytest.approx(norm, rel=GRADIENTS[t]), (t, what, key)

    def _sum(self, ours: Mapping[str, Tensor], key: str) -> float:
        """Of a recorded name's absolute values, in float64."""
        return sum(ours[name].detach().abs().sum(dtype=torch.float64).item() for name in self.names(key))

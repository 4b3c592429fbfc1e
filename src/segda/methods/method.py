"""The contract of methods: one paper, one file, one generator, and the facts that a method declares.

A method is an `nn.Module` with

    def step(self, batch: Batch, t: int) -> Iterator[dict[str, Tensor] | Update]

One yield of terms is one backward pass. The keys are what is logged; the values that have a gradient are summed and
minimised, a value without one is only logged, and may be a vector (a histogram). Terms that share a graph share a
yield. At the end of the step every player's optimiser makes a step; a yield of `Update` has one make it before. The
text of `step` is the order of events; precision, scaling, optimisers, logging and saving are the trainer's.

What the trainer must know of a method stands in its class, as facts; nobody looks for attributes by their names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, cast

from torch import Tensor, nn

from segda.networks.network import Network
from segda.scene import Batch

Need = Literal["never", "may", "must"]
"""Whether a method takes something that a recipe can give: it has no use for it, uses it where given, needs it."""


@dataclass(frozen=True, slots=True)
class Update:
    """Asks for a player's optimiser step in the middle of a method's, with the gradients that all scenes of the step
    have given it since its last one. They are cleared then. What was computed before has the weights of before.
    """

    player: str


Event = dict[str, Tensor] | Update
"""What a step yields."""


class Player(Protocol):
    """A submodule that has an optimiser."""

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """All that learns in it, by the names of the groups of its optimiser."""
        ...


class Method(nn.Module):
    """The contract. Settings are keyword-only arguments of `__init__`; a number that a paper chose has no default.

    A method whose products name a `student` gets it, a segmentation network, as the first argument of `__init__`. Any
    other method, one that trains an image translator for instance, makes its networks itself and sets `fill`.
    """

    student: Network
    """Where `products` names one."""

    products: ClassVar[Mapping[str, str]] = {"student": "student"}
    """What a run saves: the name of each product -> where in the method its network is, as "teacher.network". Student
    and teacher are segmentation networks and are scored."""

    players: ClassVar[tuple[str, ...]] = ("student",)
    """The submodules that have an optimiser. The recipe's `optim` is the student's; its `players` block has those of
    the others."""

    constants: ClassVar[tuple[str, ...]] = ()
    """The submodules that never change after they are built (settings may leave them out). A checkpoint holds but their
    hash: recipe and seed build them again."""

    source: ClassVar[Need] = "must"
    """Labelled scenes of another domain, `data.source`."""

    target_labels: ClassVar[Need] = "never"
    """Pseudo-labels of the target scenes, `data.target.labels`."""

    start: ClassVar[Need] = "may"
    """A whole trained network that the student begins with, the recipe's `start`."""

    reference: ClassVar[Need] = "never"
    """A scene that belongs to the target's or the source's, `data.reference`."""

    style: ClassVar[bool] = False
    """Whether it gives source images the look of the target's. Where these have pseudo-labels it gets further ones for
    that, `batch.style`."""

    @classmethod
    def has_student(cls) -> bool:
        """Whether it trains a segmentation network."""
        return "student" in cls.products

    @property
    def fill(self) -> tuple[float, float, float]:
        """RGB in [0, 1] of a pixel outside an image; with a student what that sees as zero."""
        return self.student.fill

    def player(self, name: str) -> Player:
        return cast(Player, self.get_submodule(name))  # torch's types tell a Module; it has groups, by the contract

    def step(self, batch: Batch, t: int) -> Iterator[Event]:
        raise NotImplementedError

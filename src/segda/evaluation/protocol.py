"""Protocol: how a number came about, of one network or of the mean of several. Without it the number says nothing."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from segda.data.stream.settings import Kernel, Shape
from segda.ground.choices import Mean, Softmax, Weights


@dataclass(frozen=True)
class Statistics:
    """Of which data, by how many images, the statistics of some of a network's batch norms are; see statistics.py.

    norms: how many they are. of: how many the network has.
    """

    data: str
    images: int
    norms: int
    of: int

    def sentence(self) -> str:
        return f"{self.norms} of {self.of} batch norms with the statistics of {self.data}, {self.images} images"


@dataclass(frozen=True)
class Protocol:
    """One network on one data set.

    resize: (width, height) of the box that images were brought to before the network saw them, None for as they are.
    shape, kernel: how they got into it, see Augment. scales: factors of that size, of which the mean counts. softmax:
    before or after the logits are upsampled to the label's size. Reports from before there was a choice do not have
    these.
    window, stride: (height, width) of the sliding window. Labels are always compared at their own size.
    statistics: what they were replaced by; None: the run's own.
    over: the classes that means go over, see labelled.measured_classes; None: all.
    """

    data: str
    images: int
    weights: Weights
    step: int | None
    recipe: str | None
    resize: tuple[int, int] | None
    how: Literal["whole", "slide"]
    window: tuple[int, int] | None
    stride: tuple[int, int] | None
    flip: bool
    precision: str
    shape: Shape = "keep"
    kernel: Kernel = "bilinear"
    scales: tuple[float, ...] = (1.0,)
    statistics: Statistics | None = None
    over: tuple[str, ...] | None = None
    softmax: Softmax = "after"

    @property
    def whose(self) -> str:
        """What tells the networks of one run apart, in words."""
        return self.weights + ("" if self.statistics is None else f" with statistics of {self.statistics.data}")

    def input(self) -> str:
        """How images reach the network, in words."""
        size = "at their size"
        if self.resize is not None:
            box = f"{self.resize[0]}x{self.resize[1]}"
            fitted = {"keep": "fitted into {}", "stretch": "stretched to {}", "pad": "fitted into {} and padded"}
            size = fitted[self.shape].format(box) + ("" if self.kernel == "bilinear" else f" ({self.kernel})")
        if self.scales != (1.0,):
            size += " times " + ", ".join(f"{factor:g}" for factor in self.scales)
            size += " (their mean)" if len(self.scales) > 1 else ""
        how = "whole"
        if self.how == "slide":
            assert self.window is not None and self.stride is not None
            how = f"window {self.window[1]}x{self.window[0]} every {self.stride[1]}x{self.stride[0]}"
        mirrored = "mean with mirrored" if self.flip else "no mirroring"
        return f"{size}, {how}, {mirrored}" + (", probabilities upsampled" if self.softmax == "before" else "")

    def network(self) -> str:
        """Which weights, in words."""
        step = "" if self.step is None else f" after step {self.step}"
        recipe = "" if self.recipe is None else f" of {self.recipe}"
        statistics = "" if self.statistics is None else f", {self.statistics.sentence()}"
        return f"{self.weights}{recipe}{step}, {self.precision}{statistics}"

    def sentence(self) -> str:
        """The whole protocol, in one line."""
        over = "" if self.over is None else f"; means over {', '.join(self.over)}"
        return f"{self.data}, {self.images} images {self.input()}{over}; {self.network()}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> Protocol:
        """ValueError for a field of another type, or missing, other than those with a default."""
        known = {field.name: table[field.name] for field in fields(cls) if field.name in table}
        try:
            found = TypeAdapter(cls).validate_json(json.dumps(known), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        other = "" if found.statistics is None else found.statistics.data
        if not all(
            name.isprintable() for name in (*(found.over or ()), found.data, found.recipe or "", found.precision, other)
        ):
            raise ValueError("a name that cannot be shown")
        if found.how == "slide" and (found.window is None or found.stride is None):
            raise ValueError("how: slide without window and stride")
        return found


@dataclass(frozen=True)
class Member:
    """One network of an ensemble, of which run it is, and its share in the mean (all shares sum to 1)."""

    run: str
    share: float
    protocol: Protocol


@dataclass(frozen=True)
class EnsembleProtocol:
    """Several networks on one data set, each seeing images in its own run's way: the mean of their logits or
    probabilities at the images' size.
    """

    mean: Mean
    members: tuple[Member, ...]
    statistics: ClassVar[None] = None
    """The runs' own."""

    @property
    def data(self) -> str:
        return self.members[0].protocol.data

    @property
    def images(self) -> int:
        return self.members[0].protocol.images

    @property
    def weights(self) -> Weights:
        """Of all members: students are not averaged with teachers."""
        return self.members[0].protocol.weights

    @property
    def over(self) -> tuple[str, ...] | None:
        """Of all members."""
        return self.members[0].protocol.over

    @property
    def whose(self) -> str:
        return self.weights

    def input(self) -> str:
        """How images reach the networks, in words; said once where it is the same for all."""
        return "; or ".join(dict.fromkeys(member.protocol.input() for member in self.members))

    def network(self) -> str:
        """Which weights, in words, and how images reach each."""
        members = " + ".join(
            f"{member.share:.3g} x {member.run} ({member.protocol.input()}; {member.protocol.network()})"
            for member in self.members
        )
        return f"ensemble, mean of {self.mean}: {members}"

    def sentence(self) -> str:
        """The whole protocol, in one line."""
        return f"{self.data}, {self.images} images; {self.network()}"

    def to_json(self) -> dict[str, Any]:
        members = [
            {"run": member.run, "share": member.share, "protocol": member.protocol.to_json()} for member in self.members
        ]
        return {
            "data": self.data,
            "images": self.images,
            "weights": self.weights,
            "mean": self.mean,
            "members": members,
        }

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> EnsembleProtocol:
        members = tuple(
            Member(member["run"], member["share"], Protocol.from_json(member["protocol"]))
            for member in table["members"]
        )
        if not members:
            raise ValueError("an ensemble without members")
        if table["mean"] not in get_args(Mean) or not all(isinstance(one.share, float | int) for one in members):
            raise ValueError("mean or shares of another kind")
        if not all(isinstance(member.run, str) and member.run.isprintable() for member in members):
            raise ValueError("the name of a run that cannot be shown")
        return cls(table["mean"], members)


def protocol_from_json(table: dict[str, Any]) -> Protocol | EnsembleProtocol:
    """The protocol of a report, whichever it is."""
    return EnsembleProtocol.from_json(table) if "members" in table else Protocol.from_json(table)

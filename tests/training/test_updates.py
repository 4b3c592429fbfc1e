"""A step that asks for optimiser steps in its middle does what a loop written by hand does."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from segda.distributed.shares import Share
from segda.errors import RunError
from segda.methods.method import Event, Method, Update
from segda.scene import Batch, Scene
from segda.training.step import train_step
from toys import Discrepancy

STEPS = 4


def network() -> nn.Module:
    torch.manual_seed(0)
    return OneConvolution()


class OneConvolution(nn.Module):
    """What the toy asks of a student: an encoder and a decoder, with dropout between them."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh())
        self.decoder = nn.Sequential(nn.Dropout(0.2), nn.Conv2d(6, 4, 1))
        self.classes = 4

    def features(self, image: Tensor) -> list[Tensor]:
        return [self.encoder(image)]

    def decode(self, features: list[Tensor]) -> Tensor:
        return self.decoder(features[-1])

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"encoder": list(self.encoder.parameters()), "head": list(self.decoder.parameters())}


def toy() -> Discrepancy:
    return Discrepancy(network(), features=6, rounds=2).train()


def batch_of(t: int, scenes: slice = slice(None)) -> Batch:
    generator = torch.Generator().manual_seed(t)
    image, other = (torch.rand(4, 3, 8, 8, generator=generator)[scenes] for _ in range(2))
    label = torch.randint(0, 4, (4, 8, 8), generator=generator)[scenes]
    return Batch(
        Scene(image, label, names=("a", "b", "c", "d")[scenes]), Scene(other, names=("e", "f", "g", "h")[scenes])
    )


def optimisers(method: Method, kind: str) -> dict[str, torch.optim.Optimizer]:
    players = {name: [*method.get_submodule(name).parameters()] for name in method.players}
    if kind == "adam":
        return {name: torch.optim.Adam(weights, lr=0.01, fused=True) for name, weights in players.items()}
    return {name: torch.optim.SGD(weights, lr=0.1, momentum=0.9) for name, weights in players.items()}


def trained(method: Method, kind: str, scaler: torch.amp.GradScaler, micro_batches: int = 1) -> list[dict[str, Tensor]]:
    players, logs = optimisers(method, kind), []
    for t in range(STEPS):
        size = 4 // micro_batches
        batches = [
            batch_of(t, slice(start, start + size)).replace(share=Share(0, t, start, micro_batches))
            for start in range(0, 4, size)
        ]
        logs.append(train_step(method, batches, t, players, scaler, torch.float32, lambda t=t: torch.manual_seed(t)))
    return logs


def scaler(scale: float | None = None) -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", enabled=scale is not None, init_scale=scale or 1.0, growth_interval=3)


def both(method: Discrepancy, image: Tensor) -> tuple[Tensor, Tensor]:
    features = method.student.encoder(image)
    return method.student.decoder(features), method.other(features)


def supervision(method: Discrepancy, scene: Scene) -> Tensor:
    one, other = both(method, scene.image)
    return nn.functional.cross_entropy(one, scene.label) + nn.functional.cross_entropy(other, scene.label)


def apart(method: Discrepancy, scene: Scene) -> Tensor:
    one, other = both(method, scene.image)
    return (one.softmax(1) - other.softmax(1)).abs().mean()


def clear(*modules: nn.Module) -> None:
    for module in modules:
        module.zero_grad(set_to_none=True)


def by_hand(method: Discrepancy, kind: str) -> None:
    """The three steps of the paper as one writes them in torch: every gradient that is not asked for is thrown away."""
    student, other = optimisers(method, kind).values()
    for t in range(STEPS):
        torch.manual_seed(t)
        batch = batch_of(t)

        clear(method)
        supervision(method, batch.source).backward()
        with torch.no_grad():
            apart(method, batch.target)  # draws dropout
        student.step()
        other.step()

        clear(method)
        (supervision(method, batch.source) - apart(method, batch.target)).backward()
        clear(method.student.encoder)
        student.step()
        other.step()

        for _ in range(method.rounds):
            clear(method)
            apart(method, batch.target).backward()
            clear(method.student.decoder)
            student.step()


@pytest.mark.parametrize("kind", ["sgd", "adam"])
@pytest.mark.parametrize("scale", [None, 1024.0])
def test_updates_in_the_middle_are_those_of_a_loop_by_hand(kind, scale):
    ours, theirs = toy(), toy()
    logs = trained(ours, kind, scaler(scale))
    by_hand(theirs, kind)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    assert logs[0].keys() == {"source", "other", "kept", "kept/other", "before", "apart", "together/0", "together/1"}
    assert all(not torch.equal(value, toy().state_dict()[name]) for name, value in ours.state_dict().items())


@pytest.mark.parametrize("micro_batches", [2, 4])
def test_all_micro_batches_reach_an_update_before_it_is_made(micro_batches):
    whole, parts = toy(), toy()
    for module in (*whole.modules(), *parts.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    one, several = trained(whole, "sgd", scaler()), trained(parts, "sgd", scaler(), micro_batches)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(several, one, strict=True):
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-6)


class Overflowing(Method):
    """One player's gradient is beyond what floats hold once it is scaled; the other's is not."""

    players = ("student", "other")

    def __init__(self):
        super().__init__()
        self.student, self.other = nn.Linear(1, 1), nn.Linear(1, 1)

    def step(self, batch: Batch, t: int) -> Iterator[Event]:
        yield {"large": 1e30 * self.student.weight.sum()}
        yield Update("student")
        yield {"small": self.other.weight.sum()}
        yield {"large again": 1e-3 * self.student.weight.sum()}


def test_an_update_whose_scaled_gradients_overflow_is_left_out_and_the_scale_falls_at_the_end():
    method, scale = Overflowing(), scaler(2.0**40)
    before = copy.deepcopy(method.state_dict())
    players = {name: torch.optim.SGD(method.get_submodule(name).parameters(), lr=1.0) for name in method.players}
    train_step(method, [batch_of(0)], 0, players, scale, torch.float32)
    assert torch.equal(method.student.weight, before["student.weight"] - 1e-3)
    assert torch.equal(method.other.weight, before["other.weight"] - 1)
    assert scale.get_scale() == 2.0**39
    train_step(method, [batch_of(0)], 1, players, scaler(4.0), torch.float32)
    assert method.student.weight.item() == pytest.approx(-1e30)


class Broken(Method):
    players = ("student", "other")

    def __init__(self, at: str):
        super().__init__()
        self.student, self.other, self.at = nn.Linear(1, 1), nn.Linear(1, 1), at

    def step(self, batch: Batch, t: int) -> Iterator[Event]:
        for name, player in (("first", "student"), ("second", "other"), ("third", "student")):
            yield {name: self.get_submodule(player).weight.sum() * (float("nan") if name == self.at else 1)}
            yield Update(player)


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize(("at", "moved"), [("first", set()), ("second", {"student"}), ("third", {"student", "other"})])
def test_a_term_that_is_not_finite_is_refused_before_the_update_that_it_would_spoil(at, moved, micro_batches):
    method = Broken(at)
    before = copy.deepcopy(method.state_dict())
    players = {name: torch.optim.SGD(method.get_submodule(name).parameters(), lr=0.5) for name in method.players}
    batches = [
        batch_of(0, slice(2 * k, 2 * k + 2)).replace(share=Share(0, 0, 2 * k, micro_batches))
        for k in range(micro_batches)
    ]
    with pytest.raises(RunError, match=rf"step 3: {at} is not finite for a, b, "):
        train_step(method, batches, 3, players, scaler(), torch.float32)
    for name in method.players:
        step = 0.5 if name in moved else 0
        assert torch.equal(method.get_submodule(name).weight, before[f"{name}.weight"] - step)


class Mistaken(Method):
    players = ("student", "other")

    def __init__(self, mistake: str):
        super().__init__()
        self.student, self.other, self.mistake = nn.Linear(1, 1), nn.Linear(1, 1), mistake

    def step(self, batch: Batch, t: int) -> Iterator[Event]:
        yield {"term": self.student.weight.sum()}
        if self.mistake == "frozen":
            self.student.requires_grad_(False)
        if self.mistake == "no_grad":
            with torch.no_grad():
                yield Update("student")
        yield Update({"unknown": "teacher", "without": "other"}.get(self.mistake, "student"))


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("unknown", r"Mistaken yielded Update\('teacher'\); its players are student, other"),
        ("without", r"Mistaken yielded Update\('other'\), but no term has given it a gradient"),
        ("frozen", r"Mistaken yielded Update\('student'\) inside frozen\(\): close the block before"),
        ("no_grad", r"Mistaken yielded inside torch.no_grad\(\)"),
    ],
)
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_an_update_that_cannot_be_meant_is_refused(mistake, said, micro_batches):
    method = Mistaken(mistake)
    players = {name: torch.optim.SGD(method.get_submodule(name).parameters(), lr=0.5) for name in method.players}
    batches = [batch_of(0).replace(share=Share(0, 0, 4 * k, micro_batches)) for k in range(micro_batches)]
    with pytest.raises(AssertionError, match=said):
        train_step(method, batches, 0, players, scaler(), torch.float32)
    assert torch.is_grad_enabled()

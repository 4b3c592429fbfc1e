"""Every row of METHODS against the contract of methods."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import pytest
import torch

from conftest import LIT, METHOD_SETTINGS, around
from segda.data.labels.spaces import space_named
from segda.distributed.shares import Share
from segda.errors import RunError
from segda.methods import METHODS
from segda.methods.method import Method, Update
from segda.networks import NETWORKS
from segda.networks.network import Network
from segda.networks.translator import Generator
from segda.parts.teacher import Teacher
from segda.recipes.build import build
from segda.scene import IGNORE, Batch, Scene
from segda.training.step import train_step

CLASSES = space_named("camvid-11").classes
WITH_TEACHER = [name for name, cls in METHODS.items() if "teacher" in cls.products]
SPECS = {
    "mit_daformer": {
        "encoder": "tiny",
        "weights": "scratch",
        "channels": 8,
        "dilations": [1, 3],
        "dropout": 0.1,
        "drop_path": 0.1,
    },
    "encoder_decoder": {
        "encoder": "tiny",
        "weights": "scratch",
        "decoder": "conv1",
        "dropout": 0.1,
        "drop_path": 0.1,
    },
    "deeplab_v2": {"encoder": "small", "weights": "scratch", "multi_level": True, "aux_weight": 0.1},
}
SPECS["relit"] = LIT | {"over": {"name": "deeplab_v2", **SPECS["deeplab_v2"]}}
"""One of a kind; pspnet is larger, and to a method as deeplab_v2."""
SIDE = 32
SCALER = torch.amp.GradScaler("cpu", enabled=False)


def network(name: str, method: str) -> Network:
    torch.manual_seed(0)
    return build(NETWORKS, around(method, {"name": name, **SPECS[name]}), "network", class_names=CLASSES)


def method_named(name: str, on: str = "mit_daformer", **settings) -> Method:
    settings = METHOD_SETTINGS[name] | settings
    if not METHODS[name].has_student():
        torch.manual_seed(0)
        return build(METHODS, {"name": name, **settings}, "method").train()
    student = network(on, name)
    for key in ("entropy_weight", "adversarial_weight"):
        if isinstance(settings.get(key), dict):
            settings[key] = dict.fromkeys(student.heads, 0.1)
    return build(METHODS, {"name": name, **settings}, "method", student=student).train()


def batch_of(t: int, name: str = "source_only") -> Batch:
    """Two scenes of each domain; pseudo-labels only for a method that learns from them."""
    generator = torch.Generator().manual_seed(100 + t)

    def label() -> torch.Tensor:
        classes = torch.randint(0, len(CLASSES), (2, 2, 2), generator=generator)
        blocks = classes.repeat_interleave(SIDE // 2, 1).repeat_interleave(SIDE // 2, 2)
        blocks[:, :2] = IGNORE
        return blocks

    source = Scene(torch.rand(2, 3, SIDE, SIDE, generator=generator), label(), names=("a", "b"))
    weight = torch.ones(2, SIDE, SIDE)
    weight[:, -4:] = 0
    pseudo = label() if METHODS[name].target_labels == "must" else None
    target = Scene(torch.rand(2, 3, SIDE, SIDE, generator=generator), pseudo, weight, names=("c", "d"))
    reference = None
    if METHODS[name].reference == "must":
        reference = Scene(torch.rand(2, 3, SIDE, SIDE, generator=generator), names=("e", "f"))
    return Batch(source, target, reference, share=Share(step=t))


def trained(method: Method, steps: range) -> list[dict[str, float]]:
    players = {name: torch.optim.AdamW(getattr(method, name).parameters(), lr=1e-3) for name in method.players}
    name = next(name for name, cls in METHODS.items() if type(method) is cls)
    logs = []
    for t in steps:
        torch.manual_seed(t)
        log = train_step(method, [batch_of(t, name)], t, players, SCALER, torch.float32)
        logs.append({name: value.tolist() for name, value in log.items()})
    return logs


ON_EACH = pytest.mark.parametrize(("name", "on"), [(name, on) for name in METHODS for on in SPECS])


@ON_EACH
def test_gradients_reach_the_players_and_nobody_else_and_the_same_seed_gives_the_same_terms(name, on):
    method, seen, updated = method_named(name, on), {}, False
    torch.manual_seed(0)
    for terms in method.step(batch_of(0, name), 0):
        if isinstance(terms, Update):  # after which a training computes with other weights
            updated = True
            continue
        sum(term for term in terms.values() if term.requires_grad).backward()
        seen |= {} if updated else {name: term.tolist() for name, term in terms.items()}
    learning = [parameter for player in method.players for parameter in parameters_of(getattr(method, player))]
    assert all(parameter.grad is not None for parameter in learning)
    known = {id(parameter) for parameter in learning}
    others = [parameter for parameter in method.parameters() if id(parameter) not in known]
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in others)
    logs, _ = trace(name, on)
    assert seen and seen.items() <= logs[0].items()


@ON_EACH
def test_every_product_of_a_method_is_a_network_in_it(name, on):
    _, method = trace(name, on)
    if method.has_student():
        assert method.get_submodule(method.products["student"]) is method.student
    for place in method.products.values():
        assert isinstance(method.get_submodule(place), Network if method.has_student() else Generator)
    # No copy of the student that is neither kept nor constant: nobody forgets to declare one.
    declared = (*method.products.values(), *method.constants)
    networks = [place for place, module in method.named_modules() if isinstance(module, Network)]
    assert all(place in declared or place.startswith(tuple(f"{one}." for one in declared)) for place in networks)


AUTO = {"level": "auto", "level_statistic": "mean", "level_momentum": 0.9}


@pytest.mark.parametrize(("name", "settings"), [*((name, {}) for name in METHODS), ("ebda", AUTO)])
def test_a_method_that_has_seen_nothing_is_finite_already(name, settings):
    state = method_named(name, **settings).state_dict()
    assert all(value.isfinite().all() for value in state.values())


@pytest.mark.parametrize("name", METHODS)
def test_constants_have_no_gradient_and_stay_as_they_are_whatever_else_learns(name):
    method = method_named(name)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    trained(method, range(2))
    for constant in method.constants:
        module = method.get_submodule(constant)
        assert not any(parameter.requires_grad for parameter in module.parameters())
        assert all(torch.equal(value, before[f"{constant}.{key}"]) for key, value in module.state_dict().items())
    moved = {key for key, value in method.state_dict().items() if not torch.equal(value, before[key])}
    for part in {*method.players, *method.products.values()}:
        assert any(key.startswith(f"{part}.") for key in moved), part


def parameters_of(player: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [parameter for group in player.groups().values() for parameter in group]


@pytest.mark.parametrize("on", SPECS)
@pytest.mark.parametrize("name", ["advent", "esl"])
def test_fooling_teaches_the_student_alone_and_judging_the_discriminators_alone(name, on):
    method = method_named(name, on)
    judged = 0
    for terms in method.step(batch_of(0, name), 0):
        judging = any(term.startswith("discriminator/") for term in terms)
        before = gradients(method.student if judging else method.discriminators)
        sum(term for term in terms.values() if term.requires_grad).backward()
        after = gradients(method.student if judging else method.discriminators)
        assert all(one is other is None or torch.equal(one, other) for one, other in zip(before, after, strict=True))
        judged += judging
    assert judged == 2
    assert all(grad is not None for grad in gradients(method.discriminators))


def gradients(module: torch.nn.Module) -> list[torch.Tensor | None]:
    return [None if parameter.grad is None else parameter.grad.clone() for parameter in module.parameters()]


@cache
def trace(name: str, on: str) -> tuple[list[dict[str, float]], Method]:
    """The terms of two steps; the method afterwards, to look at."""
    method = method_named(name, on)
    return trained(method, range(2)), method


@pytest.mark.parametrize(
    ("name", "on"),
    [*((name, "mit_daformer") for name in METHODS), *(("mic", on) for on in SPECS if on != "mit_daformer")],
)
def test_the_same_seed_gives_the_same_trace(name, on):
    """Every method, and every network with one that asks much of it; of the others see the terms of the first step."""
    logs, _ = trace(name, on)
    assert trained(method_named(name, on), range(2)) == logs


@ON_EACH
def test_every_term_is_a_finite_value_with_a_stable_name(name, on):
    logs, _ = trace(name, on)
    assert all(log.keys() == logs[0].keys() for log in logs)
    assert all(np.isfinite(np.hstack(list(log.values()))).all() for log in logs)


def teacher_of(method: Method) -> Teacher:
    return method.get_submodule(method.products["teacher"].removesuffix(".network"))


@pytest.mark.parametrize("name", WITH_TEACHER)
def test_the_teacher_copies_the_student_at_the_first_step_and_then_lags(name):
    method = method_named(name)
    with torch.no_grad():
        next(iter(teacher_of(method).network.parameters())).add_(1)
    start = copy.deepcopy(method.student)
    trained(method, range(1))
    for teacher, student in zip(teacher_of(method).network.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(teacher, student)
    assert any(
        not torch.equal(teacher, student)
        for teacher, student in zip(teacher_of(method).network.parameters(), method.student.parameters(), strict=True)
    )


@pytest.mark.parametrize("name", WITH_TEACHER)
def test_in_training_the_teacher_has_live_batch_norm_and_no_dropout(name):
    method = method_named(name).eval().train()
    for module in teacher_of(method).network.modules():
        assert module.training == isinstance(module, torch.nn.BatchNorm2d)
    first, second = (teacher_of(method)(batch_of(0).target.image) for _ in range(2))
    assert torch.equal(first, second), "no dropout"


def test_ebda_in_one_pass_and_in_two_agree_where_nothing_is_random():
    steady = {"photometric": METHOD_SETTINGS["source_only"]["photometric"] | {"jitter_prob": 0, "blur_prob": 0}}

    def gradients(second_pass: bool) -> tuple[dict, list]:
        method = method_named("ebda", second_pass=second_pass, **steady)
        for module in method.student.modules():
            if isinstance(module, torch.nn.Dropout | torch.nn.Dropout2d):
                module.p = 0
        terms, passes = {}, 0
        for yielded in method.step(batch_of(0), 0):
            sum(term for term in yielded.values() if term.requires_grad).backward()
            terms |= yielded
            passes += 1
        assert passes == (3 if second_pass else 2)
        return terms, [parameter.grad for parameter in method.student.parameters()]

    one, two = gradients(False), gradients(True)
    for name in one[0]:
        torch.testing.assert_close(one[0][name], two[0][name], rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(one[1], two[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_a_step_with_a_loss_that_is_not_finite_names_it_and_changes_no_weight():
    method = method_named("daformer")
    before = copy.deepcopy(method.student.state_dict())
    batch = batch_of(5)
    image = batch.source.image.clone()
    image[0, 0, 0, 0] = float("nan")
    broken = batch.replace(source=batch.source.replace(image=image))
    optimiser = {"student": torch.optim.AdamW(method.student.parameters(), lr=1e-3)}
    with pytest.raises(RunError, match=r"step 5: .*source.* is not finite for a, b, c, d; the last checkpoint is kept"):
        train_step(method, [broken], 5, optimiser, SCALER, torch.float32, saved=4)
    for name, value in method.student.named_parameters():
        assert torch.equal(value, before[name])


class Careless(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.student = torch.nn.Linear(1, 1)

    def step(self, batch, t):
        with torch.no_grad():
            yield {"loss": self.student.weight.sum()}


def test_a_yield_inside_no_grad_is_refused():
    with pytest.raises(AssertionError, match=r"yielded inside torch.no_grad"):
        train_step(Careless(), [batch_of(0)], 0, {}, SCALER, torch.float32)
    assert torch.is_grad_enabled(), "the trainer's own mode is restored"

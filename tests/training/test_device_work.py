"""What a step asks of a device: kernels over many tensors at once, and no waiting for their results."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import processes
from conftest import METHOD_SETTINGS
from reporting.test_tables import batch_of, method_named
from segda.distributed.shares import ALONE
from segda.methods import METHODS
from segda.parts.mixing import paste_mask
from segda.recipes.optimisers import SGD, Adam, AdamW
from segda.scene import IGNORE, Scene
from segda.training.optim import optimiser
from segda.training.step import train_step

WAITS = {
    "aten::_local_scalar_dense",  # item(), float(), bool(), int(), tolist()
    "aten::nonzero",  # also torch.where with one argument, and a boolean index
    "aten::masked_select",
    "aten::bincount",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::equal",
    "aten::is_nonzero",
    "aten::repeat_interleave.Tensor",
}
"""Operators whose result the host reads, or whose result's size it must know: on an accelerator they wait for it."""


COPIES = ("tolist", "numpy", "cpu")
"""Methods of a tensor that wait for a device's, but call no operator where it is on the host already."""


class Watch(TorchDispatchMode):
    """Lists the operators that run inside the block, and the copies to the host."""

    def __init__(self):
        super().__init__()
        self.seen: list[str] = []

    def __enter__(self):
        self.patches = [patch.object(torch.Tensor, name, self.noting(name)) for name in COPIES]
        for one in self.patches:
            one.start()
        return super().__enter__()

    def __exit__(self, *error):
        for one in self.patches:
            one.stop()
        return super().__exit__(*error)

    def noting(self, name: str):
        method = getattr(torch.Tensor, name)

        def noted(tensor, *arguments, **settings):
            self.seen.append(name)
            return method(tensor, *arguments, **settings)

        return noted

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = operator.name()
        self.seen.append(name)
        # A boolean index hides its search for the chosen places.
        if name.startswith("aten::index") and any(
            one is not None and one.dtype is torch.bool
            for one in (args[1] if isinstance(args[1], (list, tuple)) else ())
        ):
            self.seen.append("aten::nonzero")
        return operator(*args, **(kwargs or {}))

    @property
    def waits(self) -> list[str]:
        return [name for name in self.seen if name in WAITS or name in COPIES]


UPDATES = {"cyclegan": 1}
"""Optimiser steps in the middle of a method's, before which its terms are looked at, too."""

VARIANTS = [
    *((name, {}) for name in METHODS),
    ("ebda", {"second_pass": True}),
    ("ebda", {"level": "auto", "level_statistic": "quantile", "level_quantile": 0.75, "level_momentum": 0.9}),
    ("dacs", {"classes_of": "image"}),
]


@pytest.mark.parametrize("network", ["mit_daformer", "deeplab_v2"])
@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_a_step_waits_for_the_device_once_to_see_whether_its_terms_are_finite(name, settings, network):
    always = {"photometric": METHOD_SETTINGS["source_only"]["photometric"] | {"jitter_prob": 1, "blur_prob": 1}}
    changes = (always if "photometric" in METHOD_SETTINGS[name] else {}) | settings
    method = method_named(name, network, **changes)
    players = {
        player: optimiser(getattr(method, player).groups(), Adam(name="adam", lr=1e-4, betas=(0.9, 0.99), power=1))
        for player in method.players
    }
    batch = batch_of(0, name).to("cpu")
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    with Watch() as watch:
        train_step(method, [batch], 0, players, scaler, torch.float32)
    assert watch.waits == ["aten::_local_scalar_dense"] * (1 + UPDATES.get(name, 0))


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: float(x.max()),
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: x.cpu(),
        lambda x: x.nonzero(),
        lambda x: x.index_put_((x > 0,), x[:1]),
        lambda x: bool((x > 0).all()),
        lambda x: x[x > 0],
        lambda x: torch.where(x > 0),
        lambda x: x.unique(),
        lambda x: torch.bincount(x),
        lambda x: x.masked_select(x > 0),
    ],
)
def test_the_watch_sees_what_waits(wait):
    with Watch() as watch:
        wait(torch.tensor([0, 1, 2]))
    assert watch.waits


def test_the_watch_sees_no_waiting_in_arithmetic():
    with Watch() as watch:
        x = torch.tensor([0.0, 1, 2])
        torch.where(x > 0, x, 0)[torch.tensor([0, 2])].mean().sqrt()
    assert len(watch.seen) >= 4 and not watch.waits


@pytest.mark.parametrize("classes_of", ["batch", "image"])
def test_classes_looked_up_on_the_host_paste_what_those_of_the_device_do(classes_of):
    label = torch.tensor([[[0, 1, 2, IGNORE, 4]], [[7, 7, 0, 18, 7]]], dtype=torch.uint8)
    image = torch.zeros(2, 3, 1, 5)
    known, unknown = Scene(image, label).to("cpu"), Scene(image, label.long())
    assert known.classes == ((0, 1, 2, 4, IGNORE), (0, 7, 18)) and unknown.classes is None
    ours, theirs = (paste_mask(scene, classes_of, ALONE) for scene in (known, unknown))
    assert torch.equal(ours, theirs)


def test_a_new_label_forgets_the_classes_of_the_old_one():
    scene = Scene(torch.zeros(1, 3, 1, 2), torch.tensor([[[0, 1]]])).to("cpu")
    assert scene.replace(image=scene.image + 1).classes == ((0, 1),)
    assert scene.replace(label=scene.label + 1).classes is None


def test_a_teacher_follows_with_two_kernels_for_all_its_parameters():
    method = method_named("ebda")
    with Watch() as watch:
        method.parts.teacher.follow(method.student, 3, ALONE)
    assert watch.seen.count("aten::_foreach_mul_.Scalar") == 1
    assert watch.seen.count("aten::_foreach_add_.List") == 1
    assert not any(name.startswith(("aten::mul", "aten::add", "aten::lerp", "aten::copy_")) for name in watch.seen)


SETTINGS = {"lr": 1e-3, "power": 1}
OPTIMS = {
    "adamw": (
        AdamW(name="adamw", head_lr_factor=10, betas=(0.9, 0.999), weight_decay=0.01, **SETTINGS),
        "_fused_adamw_",
    ),
    "adam": (Adam(name="adam", betas=(0.9, 0.99), **SETTINGS), "_fused_adam_"),
    "sgd": (
        SGD(name="sgd", head_lr_factor=10, momentum=0.9, weight_decay=0.01, backbone_updates="once", **SETTINGS),
        "_fused_sgd_",
    ),
}


@pytest.mark.parametrize("name", OPTIMS)
def test_an_optimiser_updates_a_group_with_one_kernel(name):
    settings, kernel = OPTIMS[name]
    groups = method_named("source_only").student.groups()
    ours = optimiser(groups, settings)
    for group in groups.values():
        for parameter in group:
            parameter.grad = torch.ones_like(parameter)
    ours.step()  # the first one makes the state
    with Watch() as watch:
        ours.step()
    assert sum(one.startswith(f"aten::{kernel}") for one in watch.seen) == len(groups)
    assert not any(one.startswith(("aten::mul", "aten::add", "aten::addcdiv", "aten::lerp")) for one in watch.seen)


@pytest.mark.parametrize("name", METHODS)
def test_an_optimiser_holds_its_player_alone(name):
    method = method_named(name)
    for player in method.players:
        module = method.get_submodule(player)
        held = [parameter for group in module.groups().values() for parameter in group]
        assert sorted(map(id, held)) == sorted(map(id, module.parameters()))
    apart = {*method.products.values(), *method.constants}
    still = {place for place in apart if not place.startswith(method.players)}
    others = {id(parameter) for part in still for parameter in method.get_submodule(part).parameters()}
    learning = {id(parameter) for parameter in method.parameters() if parameter.requires_grad}
    assert not learning & others


HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
ALLOCATE = """
from segda.training import loop
import torch
kept = torch.zeros(64, 1024, 1024)
lines = open("/proc/self/smaps_rollup").read().splitlines()
print(*(line.split()[1] for line in lines if line.startswith("AnonHugePages")))
"""


@pytest.mark.skipif(not HUGE.exists() or "[never]" in HUGE.read_text(), reason="this kernel hands out no huge pages")
@pytest.mark.parametrize(("given", "huge"), [(None, True), ("0", False)])
def test_large_tensors_lie_in_huge_pages_unless_the_environment_says_no(given, huge):
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    if given is not None:
        environment["THP_MEM_ALLOC_ENABLE"] = given
    if "[always]" in HUGE.read_text() and not huge:
        pytest.skip("this kernel hands out huge pages to all")
    child = processes.run([sys.executable, "-c", ALLOCATE], env=environment, check=True)
    assert (int(child.stdout) >= 50_000) == huge  # of 262,144; memory in pieces gives fewer

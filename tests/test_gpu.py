"""What an accelerator computes against what the processor does; `make gpu` runs these on a machine that has one.

The device is that of $SEGDA_TEST_DEVICE, else cuda where there is one, else the processor: there the same tests run,
which shows that they would.
"""

from __future__ import annotations

import copy
import os
import warnings

import pytest
import torch
import torch.distributed as dist

from conftest import small_recipe
from reporting import test_tables as small
from resuming import at, content, log_of
from segda.commands.evaluate import evaluate
from segda.commands.train import train
from segda.distributed import group, sharding
from segda.ground.hardware import pick_device
from segda.methods import METHODS
from segda.run import load_network
from segda.scene import Scene
from segda.training.step import train_step

DEVICE = pick_device(os.environ.get("SEGDA_TEST_DEVICE", "auto"))
ACCELERATED = DEVICE.type == "cuda"

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def plain_float32(monkeypatch):
    """Sums in float32, not TF32, which has ten bits; and nothing that each device draws for itself."""
    monkeypatch.setitem(small.SPECS, "mit_daformer", small.SPECS["mit_daformer"] | {"dropout": 0, "drop_path": 0})
    asked = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = asked


def step_on(device: torch.device, method, name: str):
    """The terms of a step and the weights after it."""
    method = copy.deepcopy(method).to(device)
    players = {each: torch.optim.SGD(getattr(method, each).parameters(), lr=1e-2) for each in method.players}
    scaler = torch.amp.GradScaler(device.type, enabled=False)
    torch.manual_seed(0)
    terms = train_step(method, [small.batch_of(0, name).to(device)], 0, players, scaler, torch.float32)
    return {key: value.cpu() for key, value in terms.items()}, {k: v.cpu() for k, v in method.state_dict().items()}


@pytest.mark.parametrize("on", ["mit_daformer", "deeplab_v2"] if ACCELERATED else ["mit_daformer"])
@pytest.mark.parametrize("name", METHODS)
def test_a_methods_step_is_the_processors(name, on):
    method = small.method_named(name, on)
    (ours, weights), (theirs, expected) = (step_on(one, method, name) for one in (DEVICE, torch.device("cpu")))
    assert ours.keys() == theirs.keys()
    # What ends in float32 sums in another order; an argmax or a threshold may fall otherwise for a pixel or two.
    for key, term in theirs.items():
        torch.testing.assert_close(ours[key], term, rtol=2e-3, atol=2e-4, msg=lambda said, key=key: f"{key}: {said}")
    for key, weight in expected.items():
        torch.testing.assert_close(
            weights[key], weight, rtol=2e-3, atol=2e-4, msg=lambda said, key=key: f"{key}: {said}"
        )


def test_networks_say_the_same_on_both(tmp_path):
    method = small.method_named("source_only").eval()
    image = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = method.student.infer(image)
        ours = method.student.to(DEVICE).infer(image.to(DEVICE))
    torch.testing.assert_close(ours.cpu(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not ACCELERATED, reason="the processor reads all memory by itself")
def test_a_scene_in_pinned_memory_arrives_as_it_was():
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    scene = Scene(image.pin_memory()).to(DEVICE)
    assert torch.equal(scene.image.cpu(), Scene(image).to("cpu").image)


@pytest.mark.parametrize("precision", ["bf16", "16"])
def test_a_training_in_sixteen_bits_learns_what_one_in_thirty_two_does(camvid, tmp_path, precision):
    if precision == "16" and not ACCELERATED:
        pytest.skip("float16 needs a cuda device")
    found = {}
    for name in ("32", precision):
        recipe = small_recipe(camvid, "daformer").override(
            f"device='{DEVICE.type}'", f"precision='{name}'", "evaluate.data=[]", "data.workers=0"
        )
        train(recipe, tmp_path / name)
        found[name] = log_of(tmp_path / name)
    for ours, theirs in zip(found[precision], found["32"], strict=True):
        assert ours["source"] == pytest.approx(theirs["source"], rel=0.05)


class Killed(BaseException):
    """In place of a signal."""


def die() -> None:
    raise Killed


@pytest.mark.parametrize("method", ["source_only", "advent", "ebda"])
def test_a_resumed_run_ends_to_the_bit_as_one_that_was_never_stopped(camvid, tmp_path, method, monkeypatch):
    # cuBLAS is asked for it before it first runs: `make gpu` sets it for the whole process, too.
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    recipe = small_recipe(camvid, method).override(
        f"device='{DEVICE.type}'", "save_every=1", "evaluate.data=[]", "data.workers=0"
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            train(recipe, tmp_path / "whole")
            with at(2, die), pytest.raises(Killed):
                train(recipe, tmp_path / "stopped")
            train(recipe, tmp_path / "stopped", resume=True)
    finally:
        torch.use_deterministic_algorithms(False)
    loose = sorted({str(one.message).split(" ")[0] for one in told if "deterministic" in str(one.message)})
    if not loose:
        assert content(tmp_path / "stopped") == content(tmp_path / "whole")
        assert log_of(tmp_path / "stopped") == log_of(tmp_path / "whole")
        return
    # torch promises nothing of these: the weights agree as far as sums in another order do.
    print(f"{method}: not to the bit, for {', '.join(loose)}")
    ours, theirs = (load_network(tmp_path / run, device="cpu").state_dict() for run in ("stopped", "whole"))
    for key, weight in theirs.items():
        torch.testing.assert_close(ours[key], weight, rtol=1e-2, atol=1e-3)


@pytest.fixture
def alone_in_a_group():
    """This process as a group of one, with the libraries that several would have: NCCL for a cuda device."""
    backends = "cpu:gloo,cuda:nccl" if ACCELERATED else "gloo"
    dist.init_process_group(backends, store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_what_one_process_shares_with_itself_is_what_it_has(alone_in_a_group):
    value = torch.arange(6.0, device=DEVICE).view(2, 3).t()
    assert torch.equal(group.summed(value), value)
    dist.barrier()


def test_a_network_in_one_shard_says_what_a_whole_one_does(alone_in_a_group):
    method = small.method_named("source_only").to(DEVICE).eval()
    image = small.batch_of(0).to(DEVICE).source.image
    with torch.no_grad():
        whole = method.student(image).logits
        sharding.shard(method, DEVICE)
        torch.testing.assert_close(method.student(image).logits, whole, rtol=1e-4, atol=1e-5)


def test_a_run_of_the_device_is_worth_the_same_on_the_processor(camvid, tmp_path):
    recipe = small_recipe(camvid).override(f"device='{DEVICE.type}'", "evaluate.data=[]", "data.workers=0")
    train(recipe, tmp_path / "run")
    ours, theirs = (
        evaluate(tmp_path / "run", ["camvid:test:dusk"], camvid, device=device, precision="32")[0]
        for device in (DEVICE.type, "cpu")
    )
    assert ours.miou == pytest.approx(theirs.miou, abs=0.005)

"""Blocks whose maps are computed again in the backward pass, against the same network that keeps them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from conftest import small_recipe
from narrow import narrow
from networks.test_network_table import CLASSES, SMALL, images
from resuming import at, same
from segda.commands.train import train
from segda.errors import RecipeError
from segda.networks import NETWORKS
from segda.networks import activation_checkpointing as module
from segda.networks.activation_checkpointing import checkpoint_activations
from segda.networks.hrda import HRDA
from segda.networks.network import Network
from segda.recipes.build import build
from segda.scene import crop
from segda.training.max_batch import Trial

ROWS = [
    "mit_daformer", "deeplab_v2", "deeplab_v2 with one head", "segformer", "danet", "resnet50_v1c", "resnext50_32x4d",
    "resnest50", "pspnet", "relit", "hrda", "dinov2_tiny", "dinov3_tiny", "dinov3_convnext_micro", "vfm",
    "vfm with an adapter",
]  # fmt: skip
"""Of the table: every network, every kind of encoder, one head and several. Decoders keep their maps."""

IN_BFLOAT16 = ["mit_daformer", "deeplab_v2", "resnest50"]

AN_ENCODER_EACH = ["mit_daformer", "deeplab_v2", "resnet50_v1c", "resnext50_32x4d", "resnest50"]


def pair_of(name: str) -> tuple[Network, Network]:
    """A network of the table with much that is random in it, and its copy that computes again."""
    # Half of all paths and channels are dropped: draws that were not repeated would be seen.
    often = {key: 0.5 for key in ("dropout", "drop_path") if key in SMALL[name]}
    torch.manual_seed(0)
    with narrow():
        keeping = build(NETWORKS, SMALL[name] | often, "network", class_names=CLASSES)
    again = copy.deepcopy(keeping)
    checkpoint_activations(again)
    return keeping, again


def trained(network: Network, precision: torch.dtype) -> tuple[list[torch.Tensor], torch.Tensor]:
    """What two forward and backward passes give: all logits, all gradients, all buffers; and the random state then."""
    generator = torch.Generator().manual_seed(2)
    torch.manual_seed(1)
    size = (64, 64) if isinstance(network, HRDA) else (48, 64)  # its context has half of an image's pixels on a side
    seen = []
    for _ in range(2):
        image = torch.rand(2, 3, *size, generator=generator)
        with torch.autocast("cpu", precision, enabled=precision is not torch.float32):
            output = network(image)
        weight = torch.randn(2, network.classes, *size, generator=generator)
        sum(head.weight * (head.logits * crop(weight, head.box)).mean() for head in output.heads.values()).backward()
        seen += [head.logits.detach() for head in output.heads.values()]
    seen += [parameter.grad for parameter in network.parameters() if parameter.requires_grad]
    return seen + list(network.buffers()), torch.get_rng_state()


@pytest.mark.parametrize(
    ("name", "precision"),
    [*((name, torch.float32) for name in ROWS), *((name, torch.bfloat16) for name in IN_BFLOAT16)],
    ids=str,
)
def test_maps_that_are_computed_again_change_no_bit(name, precision):
    keeping, again = pair_of(name)
    (ours, random), (theirs, expected) = trained(again, precision), trained(keeping, precision)
    assert len(ours) == len(theirs)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert torch.equal(random, expected)


def test_every_network_is_tested_here():
    assert {SMALL[name]["name"] for name in ROWS} == set(NETWORKS)


def test_batch_norm_counts_each_batch_once():
    _, again = pair_of("resnest50")
    start = {name: buffer.clone() for name, buffer in again.encoder.named_buffers()}
    buffers = list(map(id, again.buffers()))
    trained(again, torch.float32)
    for name, buffer in again.encoder.named_buffers():
        if name.endswith("num_batches_tracked"):
            assert buffer == 2
        else:
            assert not torch.equal(buffer, start[name])
    assert buffers == list(map(id, again.buffers()))


def kept(network: Network, image: torch.Tensor) -> int:
    """Bytes of the tensors that the encoder's forward pass keeps for its backward pass, weights not among them."""
    own = {tensor.untyped_storage().data_ptr() for tensor in [*network.parameters(), *network.buffers()]}
    storages: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        levels = network.features(image)
    assert levels[-1].requires_grad
    return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.parametrize("name", AN_ENCODER_EACH)
def test_an_encoder_keeps_less_than_half(name):
    keeping, again = pair_of(name)
    image = images(2, 3, 96, 96)
    assert 0 < kept(again, image) < kept(keeping, image) / 2


def test_of_a_block_only_what_goes_in_is_kept():
    again = pair_of("mit_daformer")[1]
    inputs: dict[int, torch.Tensor] = {}
    for block in again.blocks():
        block.register_forward_pre_hook(lambda _, given: inputs.update({given[0].data_ptr(): given[0]}))
    cells = {32 * 32: 16, 16 * 16: 32, 8 * 8: 64, 4 * 4: 96}  # one block a stage, of so many channels
    kept(again, images(2, 3, 128, 128))
    assert sum(tensor.nbytes for tensor in inputs.values()) == sum(2 * 4 * n * width for n, width in cells.items())
    seen: list[int] = []
    block = again.blocks()[0]
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: seen.append(tensor.nbytes), lambda _: None):
        block(torch.ones(2, 32 * 32, 16, requires_grad=True), 32, 32)
    assert seen == [2 * 32 * 32 * 16 * 4]


@pytest.fixture
def runs_of(monkeypatch) -> list[nn.Module]:
    """The blocks that computed with a view to doing it again, once for each time."""
    blocks: list[nn.Module] = []
    checkpoint = module.checkpoint

    def noting(forward, *inputs, **settings):
        blocks.append(forward.__self__)
        return checkpoint(forward, *inputs, **settings)

    monkeypatch.setattr(module, "checkpoint", noting)
    return blocks


def test_nothing_is_kept_to_be_computed_again_where_there_are_no_gradients(runs_of):
    again = pair_of("deeplab_v2")[1]
    image = images(2, 3, 32, 32)
    with torch.no_grad():
        again(image)
        again.eval().infer(image)
    assert not runs_of
    again.train()(image)
    assert len(runs_of) == len(again.blocks()) == 8


def test_in_a_step_the_student_alone_computes_again(camvid, runs_of):
    trial = Trial(small_recipe(camvid, "ebda").override("activation_checkpointing=true"))
    trial.training.step([trial.noise(2)])
    own = {id(block) for block in trial.training.method.student.blocks()}
    assert len(runs_of) == 2 * 4  # the source's pass and the mixed one's; the teacher's and the start's need nothing
    assert set(map(id, runs_of)) == own


def test_one_graph_may_be_gone_back_through_twice():
    gradients = []
    for network in pair_of("resnest50"):
        torch.manual_seed(0)
        loss = (network(images(2, 3, 32, 32)).logits ** 2).mean()
        loss.backward(retain_graph=True)
        loss.backward()
        gradients.append([parameter.grad for parameter in network.parameters() if parameter.requires_grad])
        assert network.encoder.stem[1].num_batches_tracked == 1
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_a_copy_computes_with_its_own_weights():
    again = pair_of("mit_daformer")[1]
    theirs = copy.deepcopy(again)
    assert list(theirs.state_dict()) == list(pair_of("mit_daformer")[0].state_dict())
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    expected = pair_of("mit_daformer")[0]
    torch.manual_seed(3)
    ours = theirs(images(2, 3, 32, 32)).logits
    ours.mean().backward()
    torch.manual_seed(3)
    assert torch.equal(ours, expected(images(2, 3, 32, 32)).logits)
    assert all(parameter.grad is None for parameter in again.parameters())
    assert all(parameter.grad is not None for parameter in theirs.parameters())


@pytest.mark.parametrize("method", ["ebda", "advent"])
@pytest.mark.parametrize("settings", [["precision='32'"], ["precision=bf16", "accumulate=2"]], ids=" ".join)
def test_a_run_ends_with_the_same_weights(camvid, tmp_path, method, settings):
    recipe = small_recipe(camvid, method).override("evaluate.data=[]", "steps=3", *settings)
    train(recipe, tmp_path / "keeping")
    train(recipe.override("activation_checkpointing=true"), tmp_path / "again")
    assert same(tmp_path / "again", tmp_path / "keeping")


class Stopped(BaseException):
    """Ends a run where it is."""


@pytest.mark.parametrize("first", ["true", "false"])
def test_a_run_may_go_on_in_the_other_way(camvid, tmp_path, first):
    recipe = small_recipe(camvid, "daformer").override("evaluate.data=[]", "save_every=1", "steps=3")
    second = {"true": "false", "false": "true"}[first]
    train(recipe, tmp_path / "whole")

    def stop():
        raise Stopped

    with pytest.raises(Stopped), at(2, stop):
        train(recipe.override(f"activation_checkpointing={first}"), tmp_path / "run")
    train(recipe.override(f"activation_checkpointing={second}"), tmp_path / "run", resume=True)
    assert same(tmp_path / "run", tmp_path / "whole")


class Own(nn.Module):
    """A network of a user's, as far as this matters."""

    def __init__(self, blocks: list[nn.Module] | None = None):
        super().__init__()
        self.inner = nn.Linear(2, 2)
        if blocks is not None:
            self.blocks = lambda: blocks


@pytest.mark.parametrize("own", [Own(), Own([]), nn.Conv2d(1, 1, 1)])
def test_a_network_that_names_no_blocks_is_refused(own):
    with pytest.raises(
        RecipeError, match=f"activation_checkpointing: true: network {type(own).__name__} does not say .* blocks()"
    ):
        checkpoint_activations(own)


def test_a_block_of_any_kind_computes_again_and_counts_once():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.weight = nn.Parameter(torch.tensor(2.0))
            self.ran = 0

        def forward(self, value, *, power):
            self.calls += 1
            self.ran += 1
            return (value * self.weight) ** power

    block = Counting()
    checkpoint_activations(Own([block]))
    block(torch.tensor(3.0), power=2).backward()
    assert block.weight.grad == 2 * 3 * 6  # d/dw (3 w)^2 = 2 (3 w) 3 at w = 2
    assert (block.ran, block.calls) == (2, 1)

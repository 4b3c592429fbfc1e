"""VFM-UDA's networks: deformable attention against a plain loop, sizes, rates, the authors' files and back."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch
from torch import Tensor, nn

from conformance.masking import GOLDEN
from networks.test_encoders import built, images
from networks.test_network_table import SMALL
from segda.commands.convert import convert
from segda.distributed.shares import ALONE
from segda.errors import RecipeError
from segda.networks import NETWORKS
from segda.networks.encoders.adapter import POINTS, DeformableAttention, ViTAdapter, centres
from segda.networks.encoders.encoder import frozen_weights
from segda.networks.encoders.tuning import LowRank, RefiningTokens
from segda.networks.weights.layouts import LAYOUTS, to_theirs
from segda.parts.teacher import Teacher
from segda.recipes.build import build
from segda.recipes.optimisers import AdamW
from segda.recipes.recipe import load_recipe
from segda.run import load_network, save_network
from segda.run_data import space_of
from segda.training.optim import optimiser
from weight_files import prefixed

LIGHT, ADAPTER = SMALL["vfm"], SMALL["vfm with an adapter"]


def bilinear(level: Tensor, x: float, y: float) -> Tensor:
    """A map (c, h, w) at x, y in [0, 1]; cells outside are 0."""
    column, row = x * level.shape[2] - 0.5, y * level.shape[1] - 0.5
    found = torch.zeros(level.shape[0], dtype=level.dtype)
    for r in (math.floor(row), math.floor(row) + 1):
        for c in (math.floor(column), math.floor(column) + 1):
            if 0 <= r < level.shape[1] and 0 <= c < level.shape[2]:
                found += (1 - abs(row - r)) * (1 - abs(column - c)) * level[:, r, c]
    return found


@torch.no_grad()
def test_deformable_attention_equals_a_plain_loop():
    torch.manual_seed(0)
    attention, sizes = DeformableAttention(128, levels=2), [(3, 5), (2, 2)]
    for weight in attention.parameters():
        nn.init.normal_(weight, std=0.3)
    queries, values, places = torch.randn(1, 4, 128), torch.randn(1, 19, 128), torch.rand(4, 2)
    ours = attention(queries, places, values, sizes)
    cells = attention.value_proj(values)[0].view(19, 2, 32)
    offsets = attention.sampling_offsets(queries)[0].view(4, 2, 2, POINTS, 2)
    weights = attention.attention_weights(queries)[0].view(4, 2, 2 * POINTS).softmax(2).view(4, 2, 2, POINTS)
    found = torch.zeros(4, 2, 32)
    for q in range(4):
        for head in range(2):
            start = 0
            for level, (rows, columns) in enumerate(sizes):
                grid = cells[start : start + rows * columns, head].T.reshape(32, rows, columns)
                start += rows * columns
                for point in range(POINTS):
                    along, down = offsets[q, head, level, point].tolist()
                    x, y = places[q, 0].item() + along / columns, places[q, 1].item() + down / rows
                    found[q, head] += weights[q, head, level, point] * bilinear(grid, x, y)
    torch.testing.assert_close(ours[0], attention.output_proj(found.flatten(1)), rtol=1e-4, atol=1e-4)


def test_places_are_the_middles_of_cells_row_by_row():
    theirs = [[1 / 6, 0.25], [0.5, 0.25], [5 / 6, 0.25], [1 / 6, 0.75], [0.5, 0.75], [5 / 6, 0.75], [0.5, 0.5]]
    torch.testing.assert_close(centres([(2, 3), (1, 1)], torch.device("cpu")), torch.tensor(theirs))


def test_heads_begin_by_looking_along_directions_of_their_own():
    adapter = ViTAdapter(built(ADAPTER | {"encoder": "dinov2_s"}).encoder)
    offsets = adapter.inject[0].attn.sampling_offsets.bias.view(6, 3, POINTS, 2)
    # Six heads: 60 degrees apart, the longer side one cell a point.
    torch.testing.assert_close(offsets[0, 2, 1], torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(offsets[1, 0, 3], 4 * torch.tensor([1 / math.sqrt(3), 1.0]))
    torch.testing.assert_close(offsets[3, 1, 0], torch.tensor([-1.0, 0.0]))
    assert not adapter.inject[0].gamma.any() and not adapter.extract[0].attn.attention_weights.weight.any()


def test_norms_have_the_authors_eps_and_momentum():
    network = built(ADAPTER)
    eps = {norm.eps for norm in network.adapter.modules() if isinstance(norm, nn.LayerNorm)}
    momenta = {norm.momentum for norm in network.modules() if isinstance(norm, nn.BatchNorm2d)}
    assert (eps, momenta) == ({1e-5}, {0.01})
    assert {norm.eps for norm in built(LIGHT).decoder.modules() if isinstance(norm, nn.LayerNorm)} == {1e-6}


@pytest.mark.parametrize(("side", "inside"), [(1024, 1120), (512, 560), (128, 140), (100, 98), (14, 14), (13, 14)])
def test_an_image_is_enlarged_to_whole_patches_below_its_size_times_the_factor(side, inside):
    network = built(LIGHT)
    assert network.inside(torch.empty(1, 3, side, 64, device="meta")).shape[2:] == (inside, 70)


@pytest.mark.parametrize("size", [(40, 57), (64, 100)])
@torch.no_grad()
def test_an_adapter_takes_images_of_any_size(size):
    network = built(ADAPTER).eval()
    levels = network.features(images(1, 3, *size))
    inside = {40: 48, 57: 64, 64: 64, 100: 96}
    assert [tuple(level.shape[-2:]) for level in levels] == [
        tuple(math.ceil(inside[side] / stride) for side in size) for stride in (4, 8, 16, 32)
    ]
    assert network.infer(images(1, 3, *size)).shape[-2:] == size


def test_rates_are_the_authors_layer_by_layer():
    settings = AdamW(
        name="adamw", lr=2e-5, power=1, head_lr_factor=10, betas=(0.9, 0.999), weight_decay=0.01, layer_decay=0.9
    )
    network = built(ADAPTER)
    groups = optimiser(network.groups(), settings, network.layers()).param_groups
    rates = {group["name"]: group["base_lr"] for group in groups}
    assert rates == pytest.approx(
        {"encoder/00": 2e-5 * 0.9**4, **{f"encoder/{k:02d}": 2e-5 * 0.9 ** (4 - k) for k in (1, 2, 3, 4)}, "head": 2e-4}
    )
    assert {group["weight_decay"] for group in groups} == {0.01}


@pytest.mark.parametrize("spec", [LIGHT, ADAPTER], ids=["light", "adapter"])
def test_of_a_frozen_encoder_nothing_learns_but_adapter_and_decoder_do(spec):
    network = built(spec | {"freeze": True})
    assert set(network.groups()) == {"head"}
    network(images(2, 3, 48, 48)).logits.square().mean().backward()
    still = frozen_weights(network)
    assert still and all(weight.grad is None for weight in still)
    assert all(weight.grad is not None for weight in network.groups()["head"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (LIGHT | {"encoder": "tiny"}, "network.encoder: unknown encoder 'tiny'"),
        (LIGHT | {"enlarge": 0.1}, r"network.enlarge: 0.1 is not in \[0.5, 4\]"),
        (ADAPTER | {"mask_token": "learnt"}, "network.mask_token: learnt has no effect with decoder adapter"),
        (LIGHT | {"decoder": "pyramid"}, "network.decoder: .*'pyramid'"),
        (LIGHT | {"tune": "tokens", "tune_rank": 4}, "network.tune_tokens: missing; tune: tokens needs it"),
        (LIGHT | {"tune": "lora"}, "network.tune_rank: missing; tune: lora needs it"),
        (LIGHT | {"tune_rank": 4}, "network.tune_rank: 4 has no effect with tune: full"),
        (LIGHT | {"tune": "lora", "tune_rank": 0}, "network.tune_rank: 0 is below 1"),
        (LIGHT | {"tune": "lora", "tune_rank": 4, "freeze": 2}, "network.freeze: 2 has no effect with tune: lora"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, said):
    with pytest.raises(RecipeError, match=said):
        built(changes)


TUNED = {
    "tokens": {"tune": "tokens", "tune_tokens": 5, "tune_rank": 3, "mask_token": "kept"},
    "lora": {"tune": "lora", "tune_rank": 3, "mask_token": "kept"},
}


@torch.no_grad()
def test_refining_tokens_follow_their_formula():
    torch.manual_seed(0)
    tokens = RefiningTokens(2, 64, 14, count=4, rank=3)
    tokens.scale.fill_(0.5)
    every = torch.randn(1, 6, 64)
    ours = tokens(every, 2, 1)
    assert torch.equal(ours[:, :2], every[:, :2])
    table = (tokens.left[1] @ tokens.right[1]).double()
    given = table[1:] @ tokens.given.weight.double().T + tokens.given.bias.double()
    for patch in range(2, 6):
        feature = every[0, patch].double()
        scores = [math.exp((feature @ one).item() / 8) for one in table]  # 8 is the root of 64
        share = [score / sum(scores) for score in scores]
        inner = feature + sum(share[k] * given[k - 1] for k in range(1, 4))
        theirs = feature + 0.5 * (tokens.change.weight.double() @ inner + tokens.change.bias.double())
        torch.testing.assert_close(ours[0, patch].double(), theirs, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_low_rank_changes_are_nothing_at_first_and_then_their_product():
    torch.manual_seed(0)
    plain, cells = nn.Linear(6, 4), torch.randn(3, 6)
    tuned = LowRank(plain, 2)
    assert torch.equal(tuned(cells), plain(cells))
    nn.init.normal_(tuned.up)
    theirs = nn.functional.linear(cells, plain.weight + tuned.up @ tuned.down, plain.bias)
    torch.testing.assert_close(tuned(cells), theirs)


@pytest.mark.parametrize("how", TUNED)
def test_what_tunes_an_encoder_learns_its_teacher_follows_and_the_rest_stays(how):
    network = built(LIGHT | TUNED[how])
    assert set(network.groups()) == {"head"} and network.layers() == []
    start = {name: value.clone() for name, value in network.state_dict().items()}
    teacher = Teacher(network, 0.5)
    optim = torch.optim.SGD(network.groups()["head"], lr=1.0)
    for t in range(3):
        teacher.follow(network, t, ALONE)
        network.train()(images(2, 3, 28, 42)).logits.square().mean().backward()
        optim.step()
        optim.zero_grad()
    teacher.follow(network, 3, ALONE)
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, start[name])}
    inside = {name for name in moved if name.startswith("encoder.")}
    pattern = r"encoder\.tuning\." if how == "tokens" else r"encoder\.layer\.\d\.attention\.[qv]_proj\.(down|up)"
    assert inside and all(re.match(pattern, name) for name in inside)
    assert sum(network.state_dict()[name].numel() for name in inside) < 0.2 * sum(
        weight.numel() for weight in network.encoder.parameters()
    )
    followed = {name for name, value in teacher.network.state_dict().items() if not torch.equal(value, start[name])}
    # D of a low-rank change moves only once U is not 0 any more: in three steps so little that a mean may lose it.
    assert {name for name in moved if not name.endswith("down")} <= followed <= moved


def test_a_tuned_encoder_begins_with_weights_of_a_plain_one(tmp_path):
    plain = built(LIGHT)
    save_network(tmp_path / "network.safetensors", plain, LIGHT, step=1)
    tuned = built(LIGHT | TUNED["lora"] | {"weights": str(tmp_path)})
    theirs = plain.encoder.state_dict()
    assert all(torch.equal(tuned.encoder.state_dict()[name], value) for name, value in theirs.items())


@pytest.mark.parametrize(("decoder", "style"), [("light", "vfm-uda"), ("adapter", "vfm-uda-plusplus")])
def test_a_checkpoint_of_theirs_becomes_a_run_and_goes_back(decoder, style, tmp_path):
    spec = {"name": "vfm", "encoder": "dinov2_tiny", "decoder": decoder, "weights": "scratch", "enlarge": 1.1}
    recipe = load_recipe("source_only_streets").override(f"network={json.dumps(spec)}")
    torch.manual_seed(3)
    ours = build(NETWORKS, spec, "network", class_names=space_of(recipe).classes)
    for weight in ours.parameters():
        nn.init.normal_(weight.data, std=0.05)
    save_network(tmp_path / "ours.safetensors", ours, spec, step=1)
    convert(tmp_path / "ours.safetensors", tmp_path / "theirs.pth", target=style)
    theirs = torch.load(tmp_path / "theirs.pth", weights_only=True)
    # The names and shapes that were recorded of the authors' class, which is twice as wide.
    recorded = GOLDEN.json(f"vfm_{decoder}.json")
    assert theirs.keys() == recorded.keys() - {"token_masking.mask_token"}
    # As lightning saves a training: the student, its teacher, the frozen encoder and the head that it is compared by.
    others = {"network_feature_extractor.encoder.cls_token": torch.zeros(1, 1, 64)}
    others |= {"network_feature_head.feat_project.0.bias": torch.zeros(256)} if decoder == "adapter" else {}
    whole = prefixed("network.", theirs) | {f"network_ema.{name}": value + 1 for name, value in theirs.items()} | others
    if decoder == "light":
        whole["network.token_masking.mask_token"] = theirs["encoder.mask_token"]
    torch.save({"state_dict": whole, "global_step": 40000}, tmp_path / "last.ckpt")
    done = convert(tmp_path / "last.ckpt", tmp_path / "run", recipe=recipe)
    assert (done.style, done.missing) == (style, ())
    mine = load_network(tmp_path / "run").state_dict()
    assert all(torch.equal(value, mine[name]) for name, value in ours.state_dict().items())
    done = convert(tmp_path / "last.ckpt", tmp_path / "teacher", recipe=recipe, weights="teacher")
    assert torch.equal(load_network(tmp_path / "teacher").decoder.classify.weight, theirs["out.weight"] + 1)


def test_an_adapter_that_was_pretrained_alone_becomes_a_start(tmp_path):
    """As its authors publish it: the encoder with its adapter, trained with a classifier of ImageNet."""
    spec = {"name": "vfm", "encoder": "dinov2_tiny", "decoder": "adapter", "weights": "scratch", "enlarge": 1.1}
    recipe = load_recipe("source_only_streets").override(f"network={json.dumps(spec)}")
    torch.manual_seed(4)
    ours = build(NETWORKS, spec, "network", class_names=space_of(recipe).classes)
    own = {name: one for name, one in ours.state_dict().items() if name.startswith(("encoder.", "adapter."))}
    theirs, unknown = to_theirs(own, LAYOUTS["vfm-uda-plusplus"])
    assert unknown == []
    whole = prefixed("network.", theirs) | {"network.head.weight": torch.zeros(1000, 64)}
    torch.save({"state_dict": whole, "global_step": 50000}, tmp_path / "pretraining.ckpt")
    done = convert(
        tmp_path / "pretraining.ckpt", tmp_path / "start", source="vfm-uda-plusplus", recipe=recipe,
        allow_missing=True, leave_out=["network.head"],
    )  # fmt: skip
    assert all(name.startswith("decoder.") for name in done.missing) and done.missing
    mine = load_network(tmp_path / "start").state_dict()
    assert all(torch.equal(mine[name], value) for name, value in own.items())

"""Decoders on any encoder: attention by hand, heads, settings. The authors' logits: conformance/architectures.py."""

from __future__ import annotations

import onnxruntime
import pytest
import torch
import torch.nn.functional as F

from segda.errors import DataError, RecipeError
from segda.exporting.formats import quiet
from segda.networks import MiTDAFormer
from segda.networks.decoders.attention import DANet, Interlaced, PlaceAttention, Relation
from segda.networks.decoders.deeplab import DeepLabV3Plus, DilatedSum
from segda.networks.decoders.pyramid import PSP, UPerNet, grid_means
from segda.networks.decoders.refinenet import RefineNet
from segda.networks.encoder_decoder import DECODERS, EncoderDecoder

CLASSES = ("road", "sky", "car")


def network(decoder: str, /, **changes) -> EncoderDecoder:
    rates = {"dropout": 0.1 if DECODERS[decoder].dropout else None, "drop_path": 0.1}
    torch.manual_seed(0)
    return EncoderDecoder(CLASSES, **{"encoder": "tiny", "decoder": decoder, "weights": "scratch", **rates, **changes})


def maps(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


# The authors' choice, under either name


@torch.no_grad()
def test_sep_aspp_on_mit_is_mit_daformer_to_the_bit():
    settings = {"channels": 256, "dilations": (1, 6, 12, 18), "dropout": 0.1, "drop_path": 0.1}
    torch.manual_seed(0)
    theirs = MiTDAFormer(CLASSES, encoder="tiny", weights="scratch", **settings).eval()
    ours = network("sep_aspp").eval()
    assert {name: value.tolist() for name, value in ours.state_dict().items() if value.numel() < 100} == {
        name: value.tolist() for name, value in theirs.state_dict().items() if value.numel() < 100
    }
    image = torch.rand(1, 3, 48, 65)
    assert torch.equal(ours.infer(image), theirs.infer(image))
    ours.load_state_dict(theirs.state_dict())


# Attention


def test_interlaced_attention_sees_far_cells_first_and_then_its_square():
    torch.manual_seed(0)
    side, height, width = 3, 7, 8  # to 9 x 9: a row above, one below, no column left, one right
    ours = Interlaced(4, 2, side=side, depth=2, bias=True).double().eval()
    (cells,) = maps((2, 4, height, width))
    padded = torch.zeros(2, 4, 9, 9, dtype=torch.float64)
    padded[:, :, 1:8, :8] = cells
    far, near = torch.empty_like(padded), torch.empty_like(padded)
    for row in range(side):
        for column in range(side):
            far[:, :, row::side, column::side] = ours.far(padded[:, :, row::side, column::side])
    for row in range(0, 9, side):
        for column in range(0, 9, side):
            square = (slice(None), slice(None), slice(row, row + side), slice(column, column + side))
            near[square] = ours.near(far[square])
    torch.testing.assert_close(ours(cells), near[:, :, 1:8, :8])


def test_a_relation_is_the_weighted_mean_of_all_values():
    torch.manual_seed(0)
    ours = Relation(4, 2, depth=1, bias=True).double().eval()
    (cells,) = maps((1, 4, 3, 5))
    query, key, value = (part(cells).flatten(2)[0] for part in (ours.query, ours.key, ours.value))
    expected = torch.empty(4, 15, dtype=torch.float64)
    for i in range(15):
        products = torch.stack([(query[:, i] * key[:, j]).sum() / 2**0.5 for j in range(15)]).exp()
        expected[:, i] = sum(products[j] / products.sum() * value[:, j] for j in range(15))
    torch.testing.assert_close(ours(cells), ours.out(expected.view(1, 4, 3, 5)))


def test_attention_over_places_is_not_scaled_and_starts_as_the_identity():
    torch.manual_seed(0)
    ours = PlaceAttention(4, 2).double()
    (cells,) = maps((1, 4, 2, 3))
    assert torch.equal(ours(cells), cells)
    ours.gamma.scale.data.fill_(0.5)
    query, key, value = (part(cells).flatten(2)[0] for part in (ours.query, ours.key, ours.value))
    context = value @ (query.T @ key).softmax(1).T
    torch.testing.assert_close(ours(cells), cells + 0.5 * context.view(1, 4, 2, 3))


def test_attention_over_channels_looks_for_the_unlike():
    torch.manual_seed(0)
    ours = DANet([2], 3, channels=2, inner=1, dropout=0.0).attend["cam"].double()
    ours.gamma.scale.data.fill_(1)
    # Channels (1, 0) and (3, 0): products 1, 3 and 3, 9. Less each row's greatest: softmax of (2, 0) and of (6, 0).
    cells = torch.tensor([[[[1.0, 0.0]], [[3.0, 0.0]]]], dtype=torch.float64)
    first = [torch.tensor(energy).exp().div(1 + torch.tensor(energy).exp()).item() for energy in (2.0, 6.0)]
    expected = [1 + first[0] * 1 + (1 - first[0]) * 3, 3 + first[1] * 1 + (1 - first[1]) * 3]
    assert ours(cells)[0, :, 0, 0].tolist() == pytest.approx(expected)
    assert not ours(cells)[..., 1].any()


def test_attention_over_channels_is_computed_in_float32_under_autocast():
    ours = network("danet").decoder.attend["cam"]
    ours.gamma.scale.data.fill_(1)
    cells = 3 * torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = ours(cells)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(cells), expected)


# Dropout


class Nothing(torch.nn.Module):
    """In the place of a dropout: drops all, and remembers what it was given."""

    def __init__(self):
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, cells: torch.Tensor) -> torch.Tensor:
        self.seen.append(cells)
        return torch.zeros_like(cells)


@pytest.mark.parametrize("decoder", [name for name, row in DECODERS.items() if row.dropout])
@torch.no_grad()
def test_dropout_stands_before_the_classifier(decoder):
    ours = network(decoder).eval()
    ours.decoder.dropout = Nothing()
    logits = ours.decode(ours.features(torch.rand(1, 3, 64, 64)))
    classify = ours.decoder.classify
    main = classify["main"] if isinstance(classify, torch.nn.ModuleDict) else classify
    torch.testing.assert_close(logits, main.bias.view(1, -1, 1, 1).expand_as(logits))


@torch.no_grad()
def test_refinenet_drops_of_its_two_deepest_maps_too():
    ours = RefineNet([3, 4, 5, 6], 2, channels=8, dropout=0.5).double()
    ours.dropout = nothing = Nothing()
    *_, coarse, deepest = levels = maps((1, 3, 8, 8), (1, 4, 4, 4), (1, 5, 2, 2), (1, 6, 1, 1))
    ours(levels)
    assert len(nothing.seen) == 3
    assert nothing.seen[0] is deepest and nothing.seen[1] is coarse and nothing.seen[2].shape == (1, 8, 8, 8)


@torch.no_grad()
def test_psp_drops_before_the_classifier():
    ours = PSP([3, 4], 2, channels=5, scales=(1, 2), dropout=0.5).double()
    ours.dropout = nothing = Nothing()
    logits = ours(maps((2, 3, 8, 8), (2, 4, 4, 4)))
    assert nothing.seen[0].shape == (2, 5, 4, 4)
    torch.testing.assert_close(logits, ours.classify.bias.view(1, -1, 1, 1).expand_as(logits))


class Means(torch.nn.Module):
    def forward(self, level):
        return torch.cat([grid_means(level, side).flatten(2) for side in (1, 2, 3, 6)], dim=2)


class TorchsMeans(torch.nn.Module):
    def forward(self, level):
        return torch.cat([F.adaptive_avg_pool2d(level, side).flatten(2) for side in (1, 2, 3, 6)], dim=2)


# How many windows or squares there are, and how large they are, depends on the size.
@pytest.mark.parametrize(("ours", "theirs"), [
    (Means(), TorchsMeans()),
    (interlaced := Interlaced(3, 2, side=4, depth=1, bias=True).eval(), interlaced),
], ids=["grids of means", "interlaced attention"])  # fmt: skip
@torch.no_grad()
def test_a_file_of_any_size_computes_what_the_network_does(ours, theirs):
    free = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with quiet():
        program = torch.export.export(ours, (torch.rand(2, 3, 17, 33),), dynamic_shapes=(free,))
        graph = torch.onnx.export(program, dynamo=True, verbose=False).model_proto
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    for height, width in ((17, 33), (16, 32), (12, 13), (31, 60), (2, 5)):
        level = maps((1, 3, height, width))[0].float()
        (found,) = session.run(None, {session.get_inputs()[0].name: level.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), theirs(level))


# Heads


def test_danets_heads_are_both_attentions_and_their_sum():
    ours = network("danet").eval()
    with torch.no_grad():
        output = ours(torch.rand(2, 3, 64, 64))
        assert {name: head.weight for name, head in output.heads.items()} == {"main": 1, "pam": 1, "cam": 1}
        maps = ours.decoder.maps(output.features)
        for name, cells in {"pam": maps["pam"], "cam": maps["cam"], "main": maps["pam"] + maps["cam"]}.items():
            weight, bias = ours.decoder.classify[name].weight, ours.decoder.classify[name].bias
            logits = torch.einsum("kc,bchw->bkhw", weight[:, :, 0, 0], cells) + bias.view(-1, 1, 1)
            theirs = F.interpolate(logits, (64, 64), mode="bilinear", align_corners=False)
            torch.testing.assert_close(output.heads[name].logits, theirs)


def test_a_sum_of_dilated_convolutions_is_torchs():
    torch.manual_seed(0)
    ours = DilatedSum([7, 5], 3, dilations=(2, 3)).double()
    _, deepest = levels = maps((2, 7, 9, 9), (2, 5, 6, 7))
    assert not any(branch.bias.any() for branch in ours.classify)
    for branch in ours.classify:
        torch.nn.init.normal_(branch.bias)
    theirs = sum(
        F.conv2d(deepest, branch.weight, branch.bias, padding=dilation, dilation=dilation)
        for branch, dilation in zip(ours.classify, (2, 3), strict=True)
    )
    torch.testing.assert_close(ours(levels), theirs)


@torch.no_grad()
def test_the_mean_of_an_image_is_added_to_every_cell_by_deeplab_v3_plus():
    torch.manual_seed(0)
    ours = DeepLabV3Plus([3, 4], 2, channels=5, fine=2, dilations=(1, 2), dropout=0.0).double().eval()
    finest, deepest = maps((1, 3, 8, 8), (1, 4, 4, 4))
    seen = []
    ours.fuse.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    assert ours([finest, deepest]).shape == (1, 2, 8, 8)
    weight, bias = ours.mean[0].weight[:, :, 0, 0], ours.mean[0].bias
    theirs = (weight @ deepest.mean((0, 2, 3)) + bias).relu()
    torch.testing.assert_close(seen[0][0, :5], theirs.view(5, 1, 1).expand(5, 4, 4))


@torch.no_grad()
def test_every_level_of_upernet_gets_all_deeper_ones():
    torch.manual_seed(0)
    ours = UPerNet([3, 4, 5], 2, channels=6, scales=(1, 2), dropout=0.0).double().eval()
    levels = maps((1, 3, 8, 8), (1, 4, 4, 4), (1, 5, 2, 2))
    inner = []
    for smooth in ours.smooth:
        smooth.register_forward_pre_hook(lambda _, inputs: inner.append(inputs[0]))
    ours(levels)

    def larger(pixels, size):
        return F.interpolate(pixels, size, mode="bilinear", align_corners=False)

    one, two = (ours.pooled[i](F.adaptive_avg_pool2d(levels[2], i + 1)) for i in range(2))
    context = ours.context(torch.cat([levels[2], larger(one, (2, 2)), larger(two, (2, 2))], 1))
    middle = ours.lateral[1](levels[1]) + larger(context, (4, 4))
    torch.testing.assert_close(inner, [ours.lateral[0](levels[0]) + larger(middle, (8, 8)), middle])


@pytest.mark.parametrize("decoder", DECODERS)
def test_logits_are_float32_and_finite_also_when_the_network_computes_in_bfloat16(decoder):
    ours = network(decoder)
    with torch.autocast("cpu", torch.bfloat16):
        output = ours(torch.rand(2, 3, 64, 64))
    assert all(head.logits.dtype == torch.float32 for head in output.heads.values())
    sum(head.logits.square().mean() for head in output.heads.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in ours.decoder.parameters())


def test_what_upernet_sees_of_whole_images_is_not_rounded_to_bfloat16():
    torch.manual_seed(0)
    ours = UPerNet([3, 4], 2, channels=6, scales=(1, 2), dropout=0.0)
    # Two images that differ little: batch norm, which sees two values a channel, makes much of it.
    levels = [level.float() for level in maps((1, 3, 8, 8), (1, 4, 4, 4))]
    levels = [torch.cat([level, level + torch.randn(level.shape[:2])[..., None, None] / 50]) for level in levels]
    seen = []
    for look in ours.pooled:
        look.register_forward_hook(lambda _, inputs, output: seen.append(output))
    ours(levels)
    with torch.autocast("cpu", torch.bfloat16):
        ours(levels)
    assert all(torch.equal(one, other) for one, other in zip(seen[:2], seen[2:], strict=True))


@pytest.mark.parametrize(("decoder", "encoder", "times"), [
    ("sep_aspp", "tiny", 1),
    ("bottleneck_aspp", "tiny", 8),
    ("deeplab_v3_plus_enlarged", "tiny", 4),
    ("bottleneck_aspp", "resnet50_v1c", 2),
    ("deeplab_v3_plus_enlarged", "resnet50_v1c", 1),
])  # fmt: skip
@torch.no_grad()
def test_the_deepest_map_is_enlarged_for_some_decoders_and_for_the_feature_distance(decoder, encoder, times):
    ours = network(decoder, encoder=encoder, drop_path=0.1 if encoder == "tiny" else None).eval()
    image = torch.rand(1, 3, 64, 64)
    *_, deepest = ours.encoder((image - ours.mean) / ours.deviation)
    reported = ours(image).features[-1]
    theirs = F.interpolate(deepest, scale_factor=times, mode="bilinear", align_corners=False)
    torch.testing.assert_close(reported, theirs)
    assert reported.shape[-1] == times * 64 // ours.stride


# Settings


@pytest.mark.parametrize(
    ("decoder", "changes", "said"),
    [
        ("conv1", {"decoder": "upernot"}, "network.decoder: unknown decoder 'upernot'; did you mean 'upernet'"),
        ("conv1", {"encoder": "resnet50"}, "network.encoder: unknown encoder 'resnet50'; did you mean 'resnest50'"),
        ("conv1", {"dropout": None}, "network.dropout: missing; decoder conv1 needs it"),
        ("deeplab_v2_reduced", {"dropout": 0.1}, "network.dropout: 0.1 has no effect, decoder deeplab_v2_reduced"),
        ("conv1", {"drop_path": None}, "network.drop_path: missing; encoder tiny needs it"),
        ("conv1", {"encoder": "resnet50_v1c"}, "network.drop_path: 0.1 has no effect, encoder resnet50_v1c"),
        ("conv1", {"dropout": 1.0}, r"network.dropout: 1.0 is not in \[0, 1\)"),
        ("conv1", {"drop_path": -0.1}, r"network.drop_path: -0.1 is not in \[0, 1\)"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(decoder, changes, said):
    with pytest.raises(RecipeError, match=said):
        network(decoder, **changes)


@pytest.mark.parametrize(
    ("decoder", "changes"), [("upernet", {}), ("deeplab_v2_reduced", {"encoder": "resnest50", "drop_path": None})]
)
def test_a_single_image_is_too_few_for_batch_norm_after_pooling(decoder, changes):
    ours, image = network(decoder, **changes), torch.rand(1, 3, 64, 64)
    with pytest.raises(RecipeError, match="data.batch: 1 is too few"):
        ours(image)
    ours.eval()(image)


def test_an_image_that_is_too_small_for_the_encoder_is_refused():
    with pytest.raises(DataError, match="31 x 64 pixels .* encoder tiny needs 32"):
        network("conv1")(torch.rand(2, 3, 31, 64))
    with pytest.raises(DataError, match="64 x 15 pixels .* encoder resnet50_v1c needs 16"):
        network("conv1", encoder="resnet50_v1c", drop_path=None)(torch.rand(2, 3, 64, 15))

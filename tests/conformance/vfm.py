"""VFM-UDA's encoders and networks against values recorded from the authors' code (golden/modern)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from conformance.masking import GOLDEN, Drawn
from conformance.networks import generated
from conformance.steps import CLASSES
from segda.networks import VFM
from segda.networks.encoders import dino
from segda.networks.encoders.dino import DINOv2, ViTSize
from segda.networks.encoders.table import ENCODERS, EncoderRow
from segda.networks.weights.layouts import LAYOUTS
from segda.networks.weights.names import FAMILIES, to_ours
from segda.parts.distillation import COSINE, SMOOTH, DistillationSettings, DistillHead, Frozen, distance
from segda.parts.masking import block_masks
from segda.recipes.recipe import load_recipe
from segda.training.optim import lr_at, optimiser

RECORDED = GOLDEN.json("vfm.json")
SMALL = RECORDED["dinov2"]
LIGHT, ADAPTER, FROZEN = (GOLDEN.json(f"vfm_{part}.json") for part in ("light", "adapter", "frozen"))


@pytest.fixture(autouse=True)
def rows(monkeypatch):
    """The recorded encoders as rows of the tables, without and with registers."""
    for name, registers in (("recorded", 0), ("recorded_reg", 4)):
        size = ViTSize(SMALL["dim"], SMALL["depth"], SMALL["heads"], registers, SMALL["position_grid"])
        monkeypatch.setitem(dino.DINOV2S, name, size)
        row = EncoderRow(DINOv2, (SMALL["dim"],), (14,), 14, "dinov2", multiple=14)
        monkeypatch.setitem(ENCODERS, name, row)


def theirs_of(rows: dict, prefix: str = "") -> dict[str, Tensor]:
    """The generated weights by the authors' names."""
    return {name: generated(prefix + name, *row, GOLDEN) for name, row in rows.items()}


def encoder(name: str, tensors: dict[str, Tensor]) -> DINOv2:
    ours = DINOv2(name)
    inside = {key.removeprefix("encoder."): value for key, value in tensors.items() if key.startswith("encoder.")}
    found, unknown = to_ours(inside, FAMILIES["dinov2"].styles["torch hub"].ours, GOLDEN.folder)
    assert unknown == []
    ours.load_state_dict(found)
    return ours.eval()


def light_encoder() -> DINOv2:
    tensors = theirs_of(LIGHT)
    # One tensor under two names, of which the second was loaded last.
    tensors["encoder.mask_token"] = tensors["token_masking.mask_token"]
    return encoder("recorded", tensors)


def enlarged(image: Tensor, side: int) -> Tensor:
    return F.interpolate(image, (side, side), mode="bilinear", align_corners=False)


def picture(name: str = "vfm/img", side: int = 128, batch: int = 2) -> Tensor:
    """Recorded on normalised images."""
    return torch.from_numpy(GOLDEN.normal(name, (batch, 3, side, side)))


@torch.no_grad()
def test_features_at_another_grid_equal_the_authors():
    (ours,) = light_encoder()(enlarged(picture(), 140))
    theirs = GOLDEN.npz("vfm.npz")
    np.testing.assert_allclose(ours, theirs["light/features"], rtol=0, atol=5e-5)
    # The library's own positions are others, and not by rounding.
    assert abs(ours.numpy() - theirs["transformers/features"]).max() > 0.1


@torch.no_grad()
def test_features_of_masked_tokens_equal_the_authors():
    recorded = RECORDED["light"]["masked"]
    hidden = torch.tensor(recorded["masked_tokens"], dtype=torch.bool).unflatten(1, (10, 10))
    (ours,) = light_encoder()(enlarged(picture(), 140), hidden)
    np.testing.assert_allclose(ours, GOLDEN.npz("vfm.npz")["light/masked_features"], rtol=0, atol=5e-5)


@torch.no_grad()
def test_a_frozen_encoder_with_registers_equals_the_authors():
    (ours,) = encoder("recorded_reg", theirs_of(FROZEN, "frozen."))(enlarged(picture(), 70))
    np.testing.assert_allclose(ours, GOLDEN.npz("vfm.npz")["distill/frozen"], rtol=0, atol=5e-5)


def network(decoder: str) -> VFM:
    """The authors' network with the generated weights, on normalised images."""
    rows = {"light": LIGHT, "adapter": ADAPTER}[decoder]
    ours = VFM(CLASSES, encoder="recorded", decoder=decoder, weights="scratch", enlarge=1.1)
    layout = LAYOUTS["vfm-uda" if decoder == "light" else "vfm-uda-plusplus"]
    theirs = {f"network.{name}": value for name, value in theirs_of(rows).items()}
    found, unknown = to_ours(theirs, layout.ours, GOLDEN.folder)
    assert [name for name in unknown if not layout.skipped(name, "student")] == []
    ours.load_state_dict(found | {"mean": torch.zeros(3, 1, 1), "deviation": torch.ones(3, 1, 1)})
    return ours.eval()


@torch.no_grad()
def test_logits_of_the_light_decoder_equal_the_authors():
    ours = network("light")
    output = ours(picture())
    assert list(output.heads["main"].cells.shape) == RECORDED["light"]["logits_before_upsampling"]
    np.testing.assert_allclose(output.logits[..., ::4, ::4], GOLDEN.npz("vfm.npz")["light/logits"], rtol=0, atol=5e-5)
    assert output.logits.abs().sum().item() == pytest.approx(RECORDED["light"]["abs_sum"], rel=1e-5)
    assert (
        list(ours.inside(torch.empty(1, 3, 1024, 1024, device="meta")).shape[2:]) == [RECORDED["light"]["at_1024"]] * 2
    )


@pytest.mark.parametrize("mode", ["eval", "train"])
@torch.no_grad()
def test_maps_and_logits_of_the_adapter_equal_the_authors(mode):
    ours, theirs = network("adapter").train(mode == "train"), GOLDEN.npz("vfm.npz")
    image = picture("vfm/adapter", 224, 1)  # inside already
    output = ours(image, size=(56, 56))
    tolerance = {"eval": 5e-5, "train": 2e-4}[mode]
    for name, level, step in zip(("f1", "f2", "f3", "f4"), output.features, (4, 2, 1, 1), strict=True):
        np.testing.assert_allclose(level[..., ::step, ::step], theirs[f"adapter/{mode}/{name}"], rtol=0, atol=tolerance)
    np.testing.assert_allclose(output.logits[..., ::2, ::2], theirs[f"adapter/{mode}/logits"], rtol=0, atol=tolerance)
    sums = [level.abs().sum().item() for level in (*output.features, output.logits)]
    assert sums == pytest.approx(RECORDED[f"adapter_{mode}"]["abs_sums"], rel=1e-5)


def test_the_distance_to_a_frozen_encoder_and_its_gradient_equal_the_authors():
    recorded, arrays = RECORDED["distill"], GOLDEN.npz("vfm.npz")
    head = DistillHead(SMALL["dim"], SMALL["dim"])
    found = {
        name.replace("feat_project", "project"): generated(f"distill.{name}", *row, GOLDEN)
        for name, row in GOLDEN.json("vfm_distill_head.json").items()
    }
    head.load_state_dict(found)
    level = torch.from_numpy(GOLDEN.normal("vfm/student_f4", (2, SMALL["dim"], 4, 4))).requires_grad_()
    frozen = torch.from_numpy(arrays["distill/frozen"])
    features = head(level, frozen.shape[-2:])
    np.testing.assert_allclose(features.detach(), arrays["distill/student"], rtol=0, atol=5e-5)
    loss = distance(features, frozen)
    assert loss.item() == pytest.approx(recorded["loss"], rel=1e-5)
    parts = SMOOTH * recorded["smooth_l1"] + COSINE * recorded["cosine"]
    assert parts == pytest.approx(recorded["loss"], rel=1e-5)
    loss.backward()
    np.testing.assert_allclose(level.grad, arrays["distill/gradient"], rtol=1e-3, atol=1e-7)


def test_the_frozen_encoder_sees_images_at_its_own_size():
    photometric = {"jitter_prob": 0, "jitter_strength": 0.2, "blur_prob": 0, "blur_sigma": (0.1, 1)}
    settings = DistillationSettings(
        encoder="recorded_reg", weights="scratch", side=RECORDED["distill"]["inside_here"], weight=0.1,
        photometric=photometric,
    )  # fmt: skip
    frozen = Frozen(settings)
    frozen.encoder.load_state_dict(encoder("recorded_reg", theirs_of(FROZEN, "frozen.")).state_dict())
    frozen.mean.zero_()
    frozen.deviation.fill_(1)
    ours = frozen.train()(picture())
    np.testing.assert_allclose(ours, GOLDEN.npz("vfm.npz")["distill/frozen"], rtol=0, atol=5e-5)
    assert not any(weight.requires_grad for weight in frozen.parameters())


def test_blocks_of_the_image_inside_equal_the_authors():
    recorded = RECORDED["block_mask"]
    torch.manual_seed(recorded["torch_seed"])
    rows, columns = recorded["grid"]
    drawn = torch.rand(1, rows, columns)
    assert (drawn[0] > recorded["ratio"]).int().tolist() == recorded["kept"]
    inside = torch.zeros(1, 3, recorded["side"], recorded["side"])
    kept = block_masks(inside, recorded["block"], recorded["ratio"], Drawn(blocks=(drawn[0].numpy(),)))[0, 0]
    first = recorded["first_rows_of_blocks"]
    assert kept[first][:, first].int().tolist() == recorded["kept"]
    assert kept.float().mean().item() == pytest.approx(recorded["kept_share"])
    changed = (kept[1:] != kept[:-1]).any(1).nonzero().flatten() + 1
    assert set(changed.tolist()) <= set(first)


RECIPES = {
    "vfmpp_vitl_gta_batch8": "vfm_plus_dinov2_gta5_cityscapes",
    "vfmpp_vitb_synthia_batch8": "vfm_plus_dinov2_synthia_cityscapes",
    "vfmpp_vitl_darkzurich_batch8": "vfm_plus_dinov2_cityscapes_dark-zurich",
}


@pytest.mark.parametrize(("key", "name"), RECIPES.items())
def test_the_schedule_and_the_rates_of_layers_equal_the_authors(key, name):
    """Of the recipes, whose rates are rounded to four digits."""
    recipe, rates = load_recipe(name), RECORDED["rates"][key]
    size = dino.DINOV2S[recipe.network["encoder"]]
    weights = {part: [torch.nn.Parameter(torch.zeros(1))] for part in range(size.depth + 1)}
    groups = {
        "encoder": [one for layer in weights.values() for one in layer],
        "head": [torch.nn.Parameter(torch.zeros(1))],
    }
    made = optimiser(groups, recipe.optim, list(weights.values())).param_groups
    ours = {group["name"]: group["base_lr"] for group in made}
    assert ours["head"] == pytest.approx(rates["decoder_and_adapter"], rel=5e-4)
    assert recipe.players["head"].lr == pytest.approx(rates["decoder_and_adapter"], rel=5e-4)
    blocks = [ours[f"encoder/{k:02d}"] for k in range(size.depth, 0, -1)]
    assert blocks == pytest.approx(rates["blocks_last_to_first"], rel=5e-4)
    assert ours["encoder/00"] == pytest.approx(rates["stem"], rel=5e-4)
    for step, factor in RECORDED["schedule"].items():
        assert lr_at(int(step), recipe.steps, recipe.optim, 1.0) == pytest.approx(factor, rel=1e-12, abs=1e-15)


def test_a_light_network_has_one_rate_for_all_layers():
    recipe, rates = load_recipe("vfm_dinov2_gta5_cityscapes"), RECORDED["rates"]["vfm_uda_vitb_batch32_decay1"]
    assert recipe.optim.layer_decay is None
    # Recorded for four devices of eight images.
    factor = (recipe.data.batch / 32) ** 0.5
    assert recipe.optim.lr == pytest.approx(factor * rates["stem"], rel=5e-4)
    assert recipe.optim.lr * recipe.optim.head_lr_factor == pytest.approx(
        factor * rates["decoder_and_adapter"], rel=5e-4
    )

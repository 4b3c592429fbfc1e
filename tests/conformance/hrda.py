"""HRDA's network against values recorded from the authors' code (golden/modern): boxes, passes, variants, inference."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import pytest
import torch
from torch import Tensor

from conformance.masking import GOLDEN, picture
from conformance.networks import generated
from conformance.steps import CLASSES
from golden import filled
from segda.distributed.shares import ALONE
from segda.evaluation.inference import slide
from segda.networks import HRDA, EncoderDecoder, MiTDAFormer
from segda.networks.hrda import box_in
from segda.networks.weights.layouts import LAYOUTS
from segda.networks.weights.names import to_ours
from segda.parts.losses import supervised
from segda.parts.pseudo import confident_fraction
from segda.scene import IGNORE, Scene, windows

ROWS = GOLDEN.json("hrda_mit_b0.json")

PUBLISHED = {
    "box": (64, 64), "grid": 8, "context_scale": 0.5, "detail_weight": 0.1, "attention": "conv1",
    "attention_dropout": 0.0,
}  # fmt: skip
"""As published, with a smaller box."""


drawn = cache(partial(generated, golden=GOLDEN))
"""A tensor of the generator's, for all networks of a file: to be copied, not to be changed."""


def b0() -> MiTDAFormer:
    return MiTDAFormer(
        CLASSES, encoder="b0", weights="scratch", channels=256, dilations=(1, 6, 12, 18), dropout=0.0, drop_path=0.0
    )


def hrda(prefix: str = "", multiply: float = 8, **changes) -> HRDA:
    """Weights generated under the authors' names with a prefix; the classifier's times `multiply`."""
    settings = PUBLISHED | changes
    rows = dict(ROWS)
    if changes.get("attention_by_class") is False:
        for part in ("weight", "bias"):
            shape, kind = rows[f"decode_head.scale_attention.conv_seg.{part}"]
            rows[f"decode_head.scale_attention.conv_seg.{part}"] = [[1, *shape[1:]], kind]
    if isinstance(settings["attention"], float):
        rows = {name: row for name, row in rows.items() if "scale_attention" not in name}
    theirs = {name: drawn(prefix + name, tuple(shape), kind) for name, (shape, kind) in rows.items()}
    theirs["decode_head.head.conv_seg.weight"] = multiply * theirs["decode_head.head.conv_seg.weight"]
    found, unknown = to_ours(theirs, LAYOUTS["hrda"].ours, GOLDEN.folder)
    assert unknown == []
    # Recorded on normalised images, where what is erased is 0.
    found |= {"over.mean": torch.zeros(3, 1, 1), "over.deviation": torch.ones(3, 1, 1)}
    network = filled(lambda: HRDA(CLASSES, over=b0(), **settings), found)
    network.fill = (0.0, 0.0, 0.0)
    return network


def as_ours(box: list[int]) -> tuple[int, int, int, int]:
    """(y1, y2, x1, x2) -> top, left, height, width."""
    top, bottom, left, right = box
    return top, left, bottom - top, right - left


@pytest.mark.parametrize("case", GOLDEN.json("crop_boxes.json"), ids=lambda case: f"{case['height']}x{case['width']}")
def test_boxes_equal_the_authors_draw_by_draw(case):
    rng = np.random.RandomState(case["numpy_seed"])
    size, box = (case["height"], case["width"]), tuple(case["crop"])

    def drawn() -> tuple[int, int, int, int]:
        return box_in(size, box, case["divisible"], rng.randint)

    if "error" in case:  # of a side as long as the box; ours stays at 0 there
        assert drawn()[::2] == (0, box[0])
        return
    assert [drawn() for _ in case["boxes_y1_y2_x1_x2"]] == [*map(as_ours, case["boxes_y1_y2_x1_x2"])]
    assert rng.randint(1000) == case["next_randint_1000"]


def test_windows_are_the_authors_at_the_published_sizes():
    for size, case in GOLDEN.json("windows.json").items():
        width, height = map(int, size.split("x"))
        assert windows(height, 1024, 512) == case["context_windows_y"]
        assert windows(width, 1024, 512) == case["context_windows_x"]
        assert windows(1024, 512, 256) == case["detail_windows_in_a_context_window"]


def at_box(network: HRDA, box: list[int]) -> HRDA:
    network.draw = lambda size: as_ours(box)
    return network


def downsampled(logits: Tensor, step: int) -> np.ndarray:
    return logits.detach().numpy()[..., ::step, ::step]


FORWARD = GOLDEN.json("hrda_forward.json")


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_training_pass_equals_the_authors(mode, weighted):
    recorded, arrays = FORWARD[mode + "_weighted" * weighted], GOLDEN.npz("hrda_forward.npz")
    network = at_box(hrda(), recorded["box_y1_y2_x1_x2"][0]).train(mode == "train")
    image, label = picture("hrda/img", (2, 3, 128, 160)), torch.from_numpy(arrays["label"]).long()
    weight = torch.from_numpy(np.clip(0.5 + 0.25 * GOLDEN.normal("hrda/weight", (2, 128, 160)), 0, 1))
    seen = {}
    fused, attention = network.fused, network.attention_of

    def noting_fused(context, *rest):
        seen["lr_times_1_minus_att"], seen["fused"] = context, fused(context, *rest)
        return seen["fused"]

    network.fused = noting_fused
    network.attention_of = lambda levels, context: seen.setdefault("attention", attention(levels, context))
    decoded = []
    network.over.decoder.register_forward_hook(lambda module, levels, logits: decoded.append(logits))
    output = network(image)
    loss = supervised(output, Scene(image, label, weight if weighted else None), over="all", share=ALONE)
    loss.backward()
    assert loss.item() == pytest.approx(recorded["total"], rel=1e-5)
    for head, key in (("main", "decode.loss_seg"), ("detail", "decode.hr.loss_seg")):
        one = output.__class__({head: output.heads[head]})
        scene = Scene(image, label, weight if weighted else None)
        part = supervised(one, scene, over="all", share=ALONE).item()
        assert part == pytest.approx(recorded["losses"][key], rel=1e-5)
    tolerance = {"train": 2e-4, "eval": 5e-5}[mode]
    seen |= {"lr": decoded[0], "hr": decoded[1], "f4": output.features[-1]}
    for name in ("lr", "hr", "f4", "lr_times_1_minus_att", "fused"):
        np.testing.assert_allclose(seen[name].detach(), arrays[f"{mode}/{name}"], rtol=0, atol=tolerance, err_msg=name)
    theirs = torch.from_numpy(arrays[f"{mode}/attention_logits"]).double().sigmoid()
    np.testing.assert_allclose(seen["attention"].detach(), theirs, rtol=0, atol=tolerance)
    total = sum(one.grad.double().square().sum() for one in network.parameters()).sqrt().item()
    assert total == pytest.approx(recorded["grad_norms"]["__total__"], rel=1e-3)
    state = network.state_dict()
    for name, row in recorded["bn"].items():
        (ours,) = LAYOUTS["hrda"].ours(name)
        assert state[ours].double().abs().sum().item() == pytest.approx(row["abs_sum"], rel=1e-5, abs=1e-9), name


SETTINGS = {
    "blur_hr_crop": "blurred_detail",
    "hr_loss": "detail_weight", "lr_loss": "context_weight", "crop": "box", "fixed_attention": "attention",
    "attention_classwise": "attention_by_class", "divisible": "grid", "hr_slide_overlapping": "overlap",
}  # fmt: skip
VARIANTS = GOLDEN.json("hrda_variants.json")


def settings_of(theirs: dict) -> dict:
    ours = {SETTINGS[key]: value for key, value in theirs.items() if key in SETTINGS}
    if "scales" in theirs:
        ours["context_scale"] = min(theirs["scales"])
    if "attention" in ours:
        ours["attention_dropout"] = None
    ours["held"] = "both" if theirs.get("feature_scale") == "all" else "context"
    return ours


@pytest.mark.parametrize("name", VARIANTS["variants"])
def test_variants_equal_the_authors(name):
    recorded, arrays = VARIANTS["variants"][name], GOLDEN.npz("hrda_variants.npz")
    network = at_box(hrda(**settings_of(recorded["settings"])), recorded["box"][0]).train()
    image, label = picture("hrda/variant", (2, 3, 128, 128)), torch.from_numpy(arrays["label"]).long()
    seen, fused = [], network.fused
    network.fused = lambda *given: seen.append(fused(*given)) or seen[-1]
    output = network(image)
    held = output.held or output.features
    # What their `features` are: all levels of the context, or with "all" the last level of both scales.
    assert [list(level.shape) for level in held] == recorded["features"]
    loss = supervised(output, Scene(image, label), over="all", share=ALONE)
    loss.backward()
    assert loss.item() == pytest.approx(recorded["total"], rel=1e-5)
    np.testing.assert_allclose(downsampled(seen[0][:1], 2), arrays[name], rtol=0, atol=2e-4)
    total = sum(one.grad.double().square().sum() for one in network.parameters() if one.grad is not None).sqrt().item()
    assert total == pytest.approx(recorded["grad_norms"]["__total__"], rel=1e-3)
    # With the running statistics after the pass above.
    with torch.no_grad():
        network.eval().infer(image)
    np.testing.assert_allclose(downsampled(seen[1][:1], 2), arrays[f"eval/{name}"], rtol=0, atol=5e-5)


INFERENCE = GOLDEN.json("hrda_inference.json")


@pytest.mark.parametrize("window_batch", [None, 1, 4])
@pytest.mark.parametrize("name", [name for name in INFERENCE if name.startswith("whole")])
@torch.no_grad()
def test_inference_over_windows_equals_the_authors(name, window_batch):
    recorded, arrays = INFERENCE[name], GOLDEN.npz("hrda_inference.npz")
    height, width = recorded["cropped_to"]
    image = picture(f"hrda/{name}", recorded["image"])[..., :height, :width]
    network = hrda(window_batch=window_batch).eval()
    logits = network.infer(image)
    np.testing.assert_allclose(downsampled(logits, 3), arrays[f"{name}/logits"], rtol=0, atol=5e-5)
    assert (logits.argmax(1).numpy() == arrays[f"{name}/argmax"]).all()


@torch.no_grad()
def test_windows_of_windows_equal_the_authors():
    arrays, recorded = GOLDEN.npz("hrda_inference.npz"), INFERENCE["slide_batched"]
    image = picture("hrda/slide", recorded["image"])
    logits = slide(hrda().eval(), image, tuple(recorded["window"]), tuple(recorded["stride"]))
    np.testing.assert_allclose(downsampled(logits, 4), arrays["slide/logits"], rtol=0, atol=5e-5)
    assert (logits.argmax(1).numpy() == arrays["slide/argmax_input"]).all()


@pytest.mark.parametrize("window_batch", [None, 5])
@pytest.mark.parametrize("mode", ["train_mode", "eval_mode"])
@torch.no_grad()
def test_pseudo_labels_equal_the_authors(mode, window_batch):
    recorded, arrays = GOLDEN.json("hrda_pseudo.json")[mode], GOLDEN.npz("hrda_pseudo.npz")
    network = hrda(window_batch=window_batch).train(mode == "train_mode")
    image, weight = picture("hrda/pseudo", (2, 3, 128, 128)), torch.ones(2, 128, 128)
    for one, (top, bottom, left, right) in zip(weight, recorded["margins_top_bottom_left_right"], strict=True):
        one[:top], one[128 - bottom :], one[:, :left], one[:, 128 - right :] = 0, 0, 0, 0
    logits = network.infer(image)
    pseudo = confident_fraction(logits, Scene(image, weight=weight), 0.968, share=ALONE)
    tolerance = {"train_mode": 2e-4, "eval_mode": 5e-5}[mode]
    np.testing.assert_allclose(downsampled(logits, 3), arrays[f"{mode}/logits"], rtol=0, atol=tolerance)
    assert (pseudo.label.numpy() == arrays[f"{mode}/label"]).all() and (pseudo.label != IGNORE).all()
    np.testing.assert_allclose(
        downsampled(logits.softmax(1).amax(1), 2), arrays[f"{mode}/prob"], rtol=0, atol=tolerance
    )
    assert pseudo.weight.flatten(1).sum(1).tolist() == pytest.approx(recorded["weight_sum_per_sample"], rel=1e-3)
    state = network.state_dict()
    for name, row in recorded["bn"].items():
        (ours,) = LAYOUTS["hrda"].ours(name)
        assert state[ours].double().abs().sum().item() == pytest.approx(row["abs_sum"], rel=1e-4), name


def test_its_names_over_deeplab_are_the_authors():
    """All that the authors' HRDA on DeepLab-v2 holds, by name and shape, is ours and goes back."""
    rows, layout = GOLDEN.json("hrda_dlv2red_r101v1c.json"), LAYOUTS["hrda-deeplab"]
    over = EncoderDecoder(CLASSES, encoder="resnet101_v1c", decoder="deeplab_v2_reduced", weights="scratch")
    settings = PUBLISHED | {"attention": "deeplab_v2_reduced", "attention_dropout": None}
    network = HRDA(CLASSES, over=over, **settings)
    ours = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    read = {}
    for name, (shape, _) in rows.items():
        (own,) = layout.ours(name)
        read[own] = shape
        assert layout.theirs(own) == (name, 0, 1)
    assert read == {name: shape for name, shape in ours.items() if name not in ("over.mean", "over.deviation")}
    assert layout.holds({"name": "hrda", "over": {"name": "encoder_decoder", "decoder": "deeplab_v2_reduced"}})
    assert not layout.holds({"name": "hrda", "over": {"name": "encoder_decoder", "decoder": "segformer"}})

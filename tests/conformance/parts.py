"""The parts of methods against values recorded from the authors' code and against slow float64 twins."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from golden import Golden
from segda.data.labels.spaces import SPACES
from segda.distributed.shares import ALONE, Share
from segda.networks.network import Head, Output
from segda.parts.entropy import Level, balance, entropy
from segda.parts.feature_distance import FeatureDistance, FeatureDistanceSettings, cell_labels, feature_distance
from segda.parts.losses import cross_entropy, supervised
from segda.parts.mixing import class_mix, paste_mask
from segda.parts.photometric import colour_jitter, gaussian_blur, hsv_to_rgb, kernel_size, rgb_to_hsv
from segda.parts.pseudo import confident_fraction
from segda.parts.teacher import Teacher
from segda.recipes.optimisers import AdamW
from segda.scene import IGNORE, Scene
from segda.training.optim import lr_at

GOLDEN = Golden("daformer_ebda")


def normal(name: str, *shape: int) -> torch.Tensor:
    return torch.from_numpy(GOLDEN.normal(name, shape))


def close(ours: torch.Tensor, theirs: np.ndarray, tolerance: float) -> None:
    torch.testing.assert_close(
        ours.float(), torch.from_numpy(np.asarray(theirs)).float(), rtol=tolerance, atol=tolerance
    )


# Entropy and its balance


@pytest.mark.parametrize("kind", ["flat", "mid", "peaky"])
def test_entropy_balance_and_its_gradient_equal_the_authors(kind):
    theirs = GOLDEN.npz("entropy_balance.npz")
    logits = (normal(f"entropy/{kind}", 2, 19, 16, 24) * float(theirs[f"{kind}_scale"])).requires_grad_()
    unsure = entropy(logits)
    loss = 0.1 * balance(unsure, 0.4)
    loss.backward()
    close(unsure, theirs[f"{kind}_entropy"], 2e-6)
    close(loss, theirs[f"{kind}_loss"], 1e-6)
    close(logits.grad, theirs[f"{kind}_grad"], 1e-8)


def test_entropy_balance_through_an_upsampling_equals_the_authors():
    theirs = GOLDEN.npz("entropy_balance.npz")
    logits = (normal("entropy/lowres", 2, 19, 6, 8) * float(theirs["lowres_scale"])).requires_grad_()
    large = F.interpolate(logits, tuple(theirs["lowres_out_size"]), mode="bilinear", align_corners=False)
    loss = 0.1 * balance(entropy(large), 0.4)
    loss.backward()
    close(loss, theirs["lowres_loss"], 1e-6)
    close(logits.grad, theirs["lowres_grad"], 1e-8)


def test_entropy_equals_a_float64_sum_and_its_bounds():
    logits = torch.randn(1, 5, 3, 4, generator=torch.Generator().manual_seed(0)) * 3
    theirs = np.zeros((3, 4))
    for y in range(3):
        for x in range(4):
            exps = [math.exp(v) for v in logits[0, :, y, x].double().tolist()]
            theirs[y, x] = -sum(e / sum(exps) * math.log(e / sum(exps)) for e in exps)
    close(entropy(logits)[0], theirs, 1e-6)
    assert entropy(torch.zeros(1, 4, 1, 1)).item() == pytest.approx(math.log(4))
    certain = torch.tensor([1e4, 0.0, -1e4]).view(1, 3, 1, 1).requires_grad_()
    entropy(certain).sum().backward()
    assert entropy(certain).item() == 0 and certain.grad.abs().max() == 0


def test_a_moving_level_follows_the_mean_or_the_quantile():
    first, second = torch.tensor([0.0, 1.0, 2.0, 5.0]), torch.tensor([4.0, 4.0, 4.0, 4.0])
    mean = Level("auto", "mean", None, 0.75)
    assert mean.follow(first, ALONE) == 2.0
    assert mean.follow(second, ALONE) == 0.75 * 2.0 + 0.25 * 4.0
    quantile = Level("auto", "quantile", 0.75, 0.5)
    assert quantile.follow(first, ALONE) == 2.0  # the third smallest of four
    assert quantile.follow(second, ALONE) == 3.0
    assert Level(0.4, None, None, None).follow(first, ALONE) == torch.tensor(0.4)


# Cross entropy


@pytest.mark.parametrize("over", ["all", "valid", "weight"])
def test_cross_entropy_equals_a_float64_loop(over):
    rng = np.random.default_rng(0)
    logits, label = rng.normal(size=(2, 3, 4, 5)), rng.integers(0, 3, (2, 4, 5))
    weight = rng.uniform(size=(2, 4, 5))
    label[0, :2] = IGNORE
    total = 0.0
    for b, y, x in np.ndindex(2, 4, 5):
        if label[b, y, x] != IGNORE:
            p = np.exp(logits[b, :, y, x]) / np.exp(logits[b, :, y, x]).sum()
            total -= weight[b, y, x] * math.log(p[label[b, y, x]])
    known = label != IGNORE
    theirs = total / {"all": label.size, "valid": known.sum(), "weight": weight[known].sum()}[over]
    ours = cross_entropy(torch.tensor(logits), torch.tensor(label), torch.tensor(weight), over=over, share=ALONE)
    assert ours.item() == pytest.approx(theirs, rel=1e-6)


def test_cross_entropy_of_a_scene_without_a_valid_pixel_is_zero_with_zero_gradient():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    for over in ("all", "valid"):
        loss = cross_entropy(logits, torch.full((1, 2, 2), IGNORE), over=over, share=ALONE)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss == 0 and gradient.abs().max() == 0


def test_each_head_is_supervised_inside_its_box_by_its_share():
    label = torch.arange(16).view(1, 4, 4) % 3
    main, detail = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 2, 2)
    output = Output({"main": Head(main, 0.9), "detail": Head(detail, 0.1, (1, 2, 2, 2))})
    theirs = 0.9 * F.cross_entropy(main, label) + 0.1 * F.cross_entropy(detail, label[:, 1:3, 2:4])
    torch.testing.assert_close(
        supervised(output, Scene(torch.zeros(1, 3, 4, 4), label), over="all", share=ALONE), theirs
    )


# Pseudo-labels and mixing


def mixing_inputs() -> tuple[dict[str, np.ndarray], Scene, Scene]:
    theirs = GOLDEN.npz("dacs_mix.npz")
    source = Scene(normal("input/mix/img", 2, 3, 32, 48), torch.from_numpy(theirs["labels"]).long())
    weight = torch.ones(2, 32, 48)
    weight[:, : int(theirs["ignore_top"])] = 0
    weight[:, 32 - int(theirs["ignore_bottom"]) :] = 0
    return theirs, source, Scene(normal("input/mix/target", 2, 3, 32, 48), weight=weight)


class InTurn(Share):
    """Its scenes draw one after the other from one generator, as the authors' do."""

    def __init__(self, seed: int):
        super().__init__()
        object.__setattr__(self, "draws", np.random.RandomState(seed))
        object.__setattr__(self, "due", itertools.count())

    def rng(self, purpose: str, scene: int | None = None) -> np.random.RandomState:
        assert (purpose, scene) == ("mix", next(self.due))
        return self.draws


def test_pseudo_labels_and_their_weight_equal_the_authors():
    theirs, _, target = mixing_inputs()
    pseudo = confident_fraction(torch.from_numpy(theirs["teacher_logits"]), target, 0.968, share=ALONE)
    assert np.array_equal(pseudo.label.numpy(), theirs["pseudo_label"])
    close(pseudo.weight.max(), theirs["pseudo_weight"], 1e-6)


def test_class_mix_equals_the_authors_draw_by_draw():
    theirs, source, target = mixing_inputs()
    pseudo = confident_fraction(torch.from_numpy(theirs["teacher_logits"]), target, 0.968, share=ALONE)
    mask = paste_mask(source, "batch", InTurn(int(theirs["numpy_seed"])))
    assert np.array_equal(mask.numpy(), theirs["mix_mask"][:, 0].astype(bool))
    mixed = class_mix(source, pseudo, classes_of="batch", share=InTurn(int(theirs["numpy_seed"])))
    close(mixed.image, theirs["mixed_img"], 0)
    assert np.array_equal(mixed.label.numpy(), theirs["mixed_lbl"][:, 0])
    close(mixed.weight, theirs["mixed_weight"], 1e-6)
    without_rows = class_mix(
        source,
        confident_fraction(torch.from_numpy(theirs["teacher_logits"]), target.replace(weight=None), 0.968, share=ALONE),
        classes_of="batch",
        share=InTurn(int(theirs["numpy_seed"])),
    )
    close(without_rows.weight, theirs["mixed_weight_nocrop"], 1e-6)


def test_classes_of_the_image_are_half_of_its_own_rounded_up():
    label = torch.tensor([[[0, 1, 2, IGNORE, 4]], [[7, 7, 7, 7, 7]]])
    mask = paste_mask(Scene(label[:, None], label), "image", ALONE)
    assert mask[0].sum() == 3 and mask[1].all()


# Teacher


class Three(torch.nn.Module):
    def __init__(self, values):
        super().__init__()
        for name, value in values.items():
            setattr(self, name, torch.nn.Parameter(value.clone()))
        self.register_buffer("seen", torch.zeros(()))


def test_teacher_equals_the_authors_over_six_steps():
    theirs = GOLDEN.npz("ema.npz")
    shapes = {"w": (5, 7), "b": (6,), "gamma": ()}

    def student(k: int) -> Three:
        return Three({name: normal(f"ema/student/{k}/{name}", *shape) for name, shape in shapes.items()})

    teacher = Teacher(
        Three({name: normal(f"ema/teacher_init/{name}", *shape) for name, shape in shapes.items()}), 0.999
    )
    for t in range(6):
        now = student(t)
        now.seen.fill_(t + 1)
        teacher.follow(now, t, ALONE)
        for name in shapes:
            close(getattr(teacher.network, name), theirs[f"it{t}.{name}"], 1e-6)
    assert teacher.network.seen == 0, "buffers are not averaged"


def test_teacher_decay_is_the_authors_at_every_recorded_step():
    for steps, decay in (
        (GOLDEN.json("ema.json")["alpha"], 0.999),
        (GOLDEN.json("ema.json")["alpha_099"], 0.99),
    ):
        for t, theirs in steps.items():
            teacher = Teacher(Three({"w": torch.ones(1, dtype=torch.float64)}), decay)
            teacher.follow(Three({"w": torch.zeros(1, dtype=torch.float64)}), int(t), ALONE)
            assert teacher.network.w.item() == pytest.approx(theirs, abs=1e-12)


# FeatureDistance


def test_feature_distance_and_its_gradient_equal_the_authors():
    theirs = GOLDEN.npz("feature_distance.npz")
    label = torch.from_numpy(theirs["labels"]).long()
    start = normal("fd/imnet", 2, 16, 4, 5)
    cells = cell_labels(label, (4, 5), 0.75, 19)
    assert np.array_equal(cells.numpy(), theirs["gt_rescaled"][:, 0])
    things = torch.isin(cells, torch.tensor([6, 7, 11, 12, 13, 14, 15, 16, 17, 18]))
    assert np.array_equal(things.numpy(), theirs["mask"][:, 0].astype(bool))
    for kind, held in (
        ("things", things),
        ("all", torch.ones_like(things)),
        ("none", torch.zeros_like(things)),
    ):
        features = normal("fd/student", 2, 16, 4, 5).requires_grad_()
        loss = 0.005 * feature_distance(features, start, held, held.sum())
        loss.backward()
        # The authors' mean of nothing is NaN; ours is 0. The gradient is 0 for both.
        close(loss, 0.0 if kind == "none" else theirs[f"{kind}_loss"], 1e-6)
        close(features.grad, theirs[f"{kind}_grad"], 1e-8)


class Start(torch.nn.Module):
    """A network of which only its features are asked for, those recorded."""

    class_names = SPACES["cityscapes-19"].classes
    classes = len(class_names)

    def held(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [normal("fd/imnet", 2, 16, 4, 5)]


THINGS = ("traffic light", "traffic sign", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")


@pytest.mark.parametrize(
    ("kind", "settings"), [("things", {"classes": THINGS, "min_share": 0.75}), ("all", {"classes": None})]
)
def test_the_feature_distance_of_things_and_of_everything_equals_the_authors(kind, settings):
    theirs = GOLDEN.npz("feature_distance.npz")
    distance = FeatureDistance(Start(), FeatureDistanceSettings(weight=0.005, **settings))
    features = normal("fd/student", 2, 16, 4, 5).requires_grad_()
    source = Scene(torch.zeros(2, 3, 128, 160), torch.from_numpy(theirs["labels"]).long())
    loss = distance(Output({}, [features]), distance.at_start(source, ALONE))
    loss.backward()
    close(loss, theirs[f"{kind}_loss"], 1e-6)
    close(features.grad, theirs[f"{kind}_grad"], 1e-8)


def test_equal_features_have_distance_zero_and_no_gradient():
    features = normal("fd/student", 2, 16, 4, 5).requires_grad_()
    held = torch.ones(2, 4, 5, dtype=torch.bool)
    feature_distance(features, features.detach(), held, held.sum()).backward()
    assert features.grad.abs().max() == GOLDEN.npz("feature_distance.npz")["zero_grad_absmax"] == 0


# Photometric


def test_colour_jitter_equals_the_authors_version_of_kornia():
    theirs = GOLDEN.npz("augment.npz")
    image = np.clip(0.5 + 0.25 * GOLDEN.normal("aug/img", (1, 3, 32, 48)), 0, 1)
    for k, (brightness, contrast, saturation, hue, *order) in enumerate(theirs["jitter_params"]):
        ours = colour_jitter(torch.from_numpy(image[0]), brightness, contrast, saturation, hue, [int(o) for o in order])
        close(ours, theirs[f"jitter{k}"][0], 3e-6)


def test_blur_equals_the_authors():
    theirs = GOLDEN.npz("augment.npz")
    for k in range(3):
        ours = gaussian_blur(normal("aug/norm_img", 1, 3, 32, 48)[0], float(theirs[f"blur{k}_sigma"]))
        close(ours, theirs[f"blur{k}"][0], 2e-6)
    for side, size in theirs["blur_kernel_size_table"]:
        assert kernel_size(int(side)) == size


def test_hue_saturation_value_equal_those_of_the_standard_library():
    import colorsys

    image = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    h, s, v = rgb_to_hsv(image)
    for y in range(4):
        for x in range(5):
            theirs = colorsys.rgb_to_hsv(*image[:, y, x].tolist())
            ours = (h[y, x].item() / (2 * math.pi), s[y, x].item(), v[y, x].item())
            assert ours == pytest.approx(theirs, abs=2e-5)  # S = delta / (V + 1e-6)
            back = hsv_to_rgb(h[y, x].view(1, 1), s[y, x].view(1, 1), v[y, x].view(1, 1)).flatten().tolist()
            assert back == pytest.approx(image[:, y, x].tolist(), abs=2e-5)


# Learning rate


POLY10WARM = {"warmup": 1500, "warmup_ratio": 1e-6}
SCHEDULES = [("poly10warm", POLY10WARM, steps) for steps in (40000, 50000, 60000)] + [
    ("poly10", {"min_lr": 1e-4}, 40000)
]


@pytest.mark.parametrize(("name", "schedule", "steps"), SCHEDULES)
def test_learning_rates_equal_the_authors(name, schedule, steps):
    settings = AdamW(
        name="adamw", lr=6e-5, head_lr_factor=10, betas=(0.9, 0.999), weight_decay=0.01, power=1.0, **schedule
    )
    for t, theirs in GOLDEN.json("lr.json")[f"{name}_{steps}"].items():
        ours = [lr_at(int(t), steps, settings, base) for base in (6e-5, 6e-4)]
        assert ours == pytest.approx(theirs, rel=1e-9)

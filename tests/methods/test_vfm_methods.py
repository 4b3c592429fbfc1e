"""VFM-UDA's step and what it adds to the parts: a mirrored teacher, masked tokens, torchvision's colours."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from conftest import BLENDED, MASKING, METHOD_SETTINGS, PHOTOMETRIC, small_recipe
from networks.test_encoders import built
from networks.test_network_table import SMALL, images
from reporting.test_tables import batch_of, method_named
from segda import run as runs
from segda.commands.train import train
from segda.distributed.shares import ALONE, Share
from segda.errors import RecipeError, WeightsError
from segda.parts.masking import Masking, MaskingSettings
from segda.parts.photometric import Blended, Photometric, Strengths, blended_jitter, photometric
from segda.parts.teacher import Teacher
from segda.scene import Batch, Scene

LIGHT, ADAPTER = SMALL["vfm"], SMALL["vfm with an adapter"]


@pytest.mark.parametrize(
    ("operation", "enhance"), [(0, ImageEnhance.Brightness), (1, ImageEnhance.Contrast), (2, ImageEnhance.Color)]
)
@pytest.mark.parametrize("factor", [0.2, 0.9, 1.7])
def test_blended_colours_are_those_of_pillow(operation, enhance, factor):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    theirs = np.asarray(enhance(Image.fromarray(pixels)).enhance(factor), np.float32)
    factors = [1.0, 1.0, 1.0]
    factors[operation] = factor
    image = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    ours = 255 * blended_jitter(image, *factors, 0.0, [operation]).permute(1, 2, 0).numpy()
    assert abs(ours - theirs).max() < 2.5  # Pillow rounds greys and results


def test_each_image_is_recoloured_and_grey_or_not_by_draws_of_its_own():
    image = images(32, 3, 8, 8)
    half = Blended(
        jitter_prob=0.5, jitter_strengths=Strengths(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.4),
        grey_prob=0, blur_prob=0, blur_sigma=None,
    )  # fmt: skip
    changed = (photometric(image, half, share=ALONE) != image).flatten(1).any(1)
    assert 8 < changed.sum() < 24
    greys = half.model_copy(update={"jitter_prob": 0.0, "grey_prob": 0.5})
    grey = torch.tensor([bool((one == one[:1]).all()) for one in photometric(image, greys, share=ALONE)])
    assert 8 < grey.sum() < 24 and not torch.equal(grey, changed)
    again, other = (photometric(image, half, share=ALONE, which=which) for which in ("", "target"))
    assert torch.equal(again, photometric(image, half, share=ALONE)) and not torch.equal(again, other)


@pytest.mark.parametrize("changes", [{"blur_prob": 0.5}, {"blur_sigma": (0.1, 1.0)}])
def test_a_blur_has_a_width_and_none_has_not(changes):
    with pytest.raises(ValueError, match="blur_sigma is null where blur_prob is 0"):
        Blended.model_validate(BLENDED | {"blur_prob": 0, "blur_sigma": None} | changes)


@torch.no_grad()
def test_a_mirrored_teacher_says_the_mean_over_an_image_and_its_mirror_image():
    student = built(LIGHT)
    teacher, image = Teacher(student, 0.9, mirror=True).train(), images(2, 3, 28, 42)
    there, back = (student.eval().infer(one).softmax(1) for one in (image, image.flip(3)))
    torch.testing.assert_close(teacher(image).softmax(1), (there + back.flip(3)) / 2)
    torch.testing.assert_close(teacher(image.flip(3)).flip(3), teacher(image))


def test_a_teacher_that_follows_after_a_step_is_the_student_after_the_first_one():
    student = built(LIGHT)
    teacher = Teacher(student, 0.999, after=True)
    weights = []
    for t in range(4):
        teacher.follow(student, t, ALONE)
        weights.append(teacher.network.decoder.classify.weight.clone())
        with torch.no_grad():
            student.decoder.classify.weight.fill_(float(t + 1))
    # alpha after step s is 1 - 1 / (s + 1): the plain mean of the student after each step.
    assert [one.mean().item() for one in weights[1:]] == pytest.approx([1, 1.5, 2])
    assert not torch.equal(weights[0], weights[1])


@dataclass(frozen=True)
class Same(Share):
    """Draws that hide the left half of a grid."""

    def rng(self, purpose: str, scene: int | None = None):
        class Halves:
            def random(self, grid):
                return np.tile(np.where(np.arange(grid[1]) < grid[1] // 2, 0.0, 1.0), (grid[0], 1))

        assert purpose == "mask"
        return Halves()


def masked(spec: dict, settings: dict, image: torch.Tensor, label: torch.Tensor):
    student = built(spec).eval()
    settings = MaskingSettings.model_validate(
        {"mode": "target", "ratio": 0.5, "weight": 1.0, "augment": False} | settings
    )
    masking = Masking(student, settings, Photometric.model_validate(PHOTOMETRIC))
    scene = Scene(image, label, torch.ones_like(label, dtype=torch.float32))
    batch = Batch(scene, scene, share=Same())
    masking.follow(student, batch, 0)
    (terms,) = masking(student, batch, scene)
    return student, terms["masked"]


@pytest.mark.parametrize(
    ("spec", "settings"), [(LIGHT, {"of": "tokens", "block": None}), (ADAPTER, {"of": "inside", "block": 16})]
)
def test_what_is_hidden_inside_says_nothing(spec, settings):
    """Of tokens and of blocks inside: colours of the hidden half of the image change nothing."""
    image, label = images(1, 3, 64, 64), torch.zeros(1, 64, 64, dtype=torch.int64)
    other = image.clone()
    other[..., :24] = 0.9
    _, ours = masked(spec, settings, image, label)
    student, theirs = masked(spec, settings, other, label)
    assert torch.equal(ours, theirs)
    seen = image.clone()
    seen[..., -8:] = 0.1
    assert not torch.equal(ours, masked(spec, settings, seen, label)[1])
    if settings["of"] == "tokens":
        theirs.backward()
        assert student.encoder.embeddings.mask_token.grad.any()


@pytest.mark.parametrize(
    ("spec", "settings", "said"),
    [
        (SMALL["mit_daformer"], {"of": "tokens", "block": None}, "method.masking.of: tokens needs network vfm"),
        (SMALL["mit_daformer"], {"of": "inside", "block": 8}, "method.masking.of: inside needs network vfm"),
        (ADAPTER, {"of": "tokens", "block": None}, "tokens needs network.decoder: light"),
    ],
)
def test_masks_that_a_network_cannot_show_are_refused(spec, settings, said):
    with pytest.raises(RecipeError, match=said):
        masked(spec, settings, images(1, 3, 64, 64), torch.zeros(1, 64, 64, dtype=torch.int64))


@pytest.mark.parametrize("changes", [{"of": "tokens"}, {"block": None}])
def test_tokens_have_no_block_and_blocks_a_size(changes):
    with pytest.raises(ValueError, match="block is null with of: tokens"):
        MaskingSettings.model_validate(
            {"mode": "target", "block": 8, "ratio": 0.5, "weight": 1.0, "augment": False} | changes
        )


@pytest.mark.parametrize(
    ("method", "spec", "masking"),
    [
        ("vfm", LIGHT, {"of": "tokens", "block": None}),
        ("vfm_plus", ADAPTER, {"of": "inside", "block": 16}),
    ],
)
def test_a_training_on_a_foundation_model_moves_student_and_head_alone(method, spec, masking, camvid, tmp_path):
    recipe = small_recipe(camvid, method, masking=MASKING | masking).override(
        f"network={json.dumps(spec)}",
        "evaluate.data=[]", "steps=2", "save_every=2", "optim.layer_decay=0.9",
    )  # fmt: skip
    train(recipe, tmp_path / "run")
    *_, line = runs.read_log(tmp_path / "run")
    assert {"source", "mix", "masked", "confident"} <= line.keys()
    held = {name for name in line if name.startswith("distillation/")}
    assert held == ({"distillation/source", "distillation/target"} if method == "vfm_plus" else set())
    assert all(line[name] > 0 for name in held)
    assert ("lr/head/head" in line) == (method == "vfm_plus")


def test_each_domains_recoloured_image_is_held_near_what_the_frozen_encoder_says_of_it_as_it_is():
    colours = PHOTOMETRIC | {"jitter_prob": 1.0}
    distillation = METHOD_SETTINGS["vfm_plus"]["distillation"] | {"photometric": colours}
    method, batch = method_named("vfm_plus", distillation=distillation), batch_of(0, "vfm_plus")
    seen, frozen = [], []
    method.student.register_forward_hook(lambda student, images, output: seen.append(images[0]))
    method.frozen.register_forward_hook(lambda encoder, images, features: frozen.append(images[0]))
    *_, source, target = method.step(batch, 0)
    assert [*source, *target] == ["distillation/source", "distillation/target"]
    for image, given, shown in zip((batch.source.image, batch.target.image), frozen, seen[-2:], strict=True):
        assert torch.equal(given, image) and not torch.equal(shown, image)
        assert (shown - image).abs().mean() < 0.3  # it is that image, in other colours


def test_the_frozen_encoder_and_the_head_are_no_part_of_the_student(camvid, said):
    from segda.training import assembly

    recipe = small_recipe(camvid, "vfm_plus")
    method = assembly.assemble(recipe, camvid, None).method
    assert "encoder dinov2_tiny_reg: random start (weights: scratch)" in said
    assert {name.split(".")[0] for name, weight in method.named_parameters() if weight.requires_grad} == {
        "student",
        "head",
    }
    before = copy.deepcopy(method.frozen.state_dict())
    method.train()
    assert not any(module.training for module in method.frozen.encoder.modules())
    assert all(torch.equal(value, before[name]) for name, value in method.frozen.state_dict().items())
    with pytest.raises(WeightsError, match="^method.distillation.weights: no file or folder nowhere.pth"):
        assembly.assemble(recipe.override("method.distillation.weights=nowhere.pth"), camvid, None)
    with pytest.raises(RecipeError, match="method.distillation.side: 30 is no multiple of 14"):
        assembly.assemble(recipe.override("method.distillation.side=30"), camvid, None)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (
            "method.photometric.jitter_prob=2",
            r"method.photometric: jitter_prob: Input should be less than or equal to 1",
        ),
        (
            "method.photometric.jiter_prob=1",
            r"method.photometric: unknown key 'jiter_prob'; did you mean 'jitter_prob'",
        ),
        (
            "method.source_photometric.jitter_strengths.hue=0.9",
            r"jitter_strengths.hue: Input should be less than .* 0.5",
        ),
        ("method.photometric.grey_prob=0.1", r"method.photometric: unknown key 'grey_prob'"),
        (
            "method.source_photometric.blur_sigma=null",
            r"method.source_photometric: blur_sigma is null where blur_prob is 0",
        ),
    ],
)
def test_wrong_colours_are_told_by_their_key(setting, said, camvid):
    with pytest.raises(RecipeError, match=said):
        small_recipe(camvid, "vfm").override(setting)

"""Online adaptation against plain loops: what is learnt of each image, what is predicted, what is forgotten."""

import copy
import gc
import math
from contextlib import nullcontext

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from conftest import small_recipe, write_camvid
from segda.data.sets.datasets import open_data
from segda.errors import RecipeError
from segda.evaluation.certainty import labels, labels_and_confidence
from segda.evaluation.inference import views
from segda.evaluation.look import Eye, look
from segda.networks import NETWORKS
from segda.online import ONLINE
from segda.recipes.build import build
from small_run import SPACE

DUSK = "camvid:train:dusk"
CPU = torch.device("cpu")
TENT = {"lr": 1e-2, "betas": (0.9, 0.999), "steps": 1}
COTTA = {"lr": 1e-2, "betas": (0.9, 0.999), "decay": 0.9, "restore": 0.0, "level": 0.0, "scales": (1.0, 1.5)}
SETTINGS = {"tent": TENT, "cotta": COTTA, "batchnorm": {"prior": 2.0}}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return open_data(DUSK, write_camvid(tmp_path_factory.mktemp("data")))


def network_of():
    """One with batch norm and layer norm, whose running statistics are not those it began with."""
    torch.manual_seed(4)
    network = build(NETWORKS, small_recipe("data").network, "network", class_names=SPACE.classes).eval()
    for name, buffer in network.named_buffers():
        if "running" in name:
            buffer.uniform_(0.1, 1)
    return network


def eye_of(network):
    return Eye(network, small_recipe("data").evaluate, CPU, nullcontext())


def stream(name, images, order=(0, 1, 2), episodic=False, **changes):
    """What a method predicts of each image, and the method afterwards."""
    online = ONLINE[name](eye_of(network_of()), **SETTINGS[name] | changes)

    def each(sight):
        label = labels(online.told(sight), sight.size)
        if episodic:
            online.reset()
        return label

    return list(look([online.eye], images, each, title="t", indices=order, gradients=True, at_rest=False)), online


def batch(images, i):
    return images.read(i).image[None] / 255


def with_own_statistics(network):
    """As the authors' configure_model: batch norm has no statistics to keep."""
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
    return network


def test_tent_is_the_papers_loop_over_norms_alone(images):
    ours, online = stream("tent", images)
    theirs = with_own_statistics(network_of())
    learns = [p for m in theirs.modules() if isinstance(m, nn.BatchNorm2d | nn.LayerNorm) for p in m.parameters()]
    adam = torch.optim.Adam(learns, lr=1e-2)
    for i, label in enumerate(ours):
        logits = theirs.infer(batch(images, i))
        assert (logits[0].argmax(0) == label).float().mean() > 0.999
        loss = -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    before, moved = network_of().state_dict(), set()
    for name, parameter in online.network.named_parameters():
        torch.testing.assert_close(parameter, dict(theirs.named_parameters())[name], atol=2e-4, rtol=1e-3)
        moved |= {name} if not torch.equal(parameter, before[name]) else set()
    norms = {f"{name}.{kind}" for name, module in theirs.named_modules() for kind in ("weight", "bias")
             if isinstance(module, nn.BatchNorm2d | nn.LayerNorm)}  # fmt: skip
    assert moved and moved <= norms
    for name, buffer in online.network.named_buffers():
        assert torch.equal(buffer, before[name]), name


def test_tents_further_steps_change_what_comes_after_and_not_this_prediction(images):
    one, first = stream("tent", images, [0])
    two, second = stream("tent", images, [0], steps=2)
    assert torch.equal(one[0], two[0])
    assert any(not torch.equal(a, b) for a, b in zip(first.learns, second.learns, strict=True))


def test_cottas_step_is_the_papers(images):
    """Of two images: all weights learn from the teacher's logits, and the teacher follows."""
    ours, online = stream("cotta", images, [0, 1])
    student, teacher = with_own_statistics(network_of()), with_own_statistics(network_of())
    adam = torch.optim.Adam(student.parameters(), lr=1e-2)
    for i, label in enumerate(ours):
        with torch.no_grad():
            said = teacher.infer(batch(images, i))
        assert (said[0].argmax(0) == label).float().mean() > 0.999
        loss = -(said.softmax(1) * student.infer(batch(images, i)).log_softmax(1)).sum(1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            for own, other in zip(teacher.parameters(), student.parameters(), strict=True):
                own.copy_(0.9 * own + 0.1 * other)
    # Adam divides by the gradient's size, so that rounding moves weights of small gradients.
    far = [(a - b).abs().mean() for a, b in zip(online.network.parameters(), student.parameters(), strict=True)]
    assert max(far) < 2e-3
    far = [(a - b).abs().mean() for a, b in zip(online.teacher.parameters(), teacher.parameters(), strict=True)]
    assert max(far) < 2e-4


def test_where_the_network_as_it_was_is_not_sure_the_teachers_mean_over_scales_and_mirrors_counts(images):
    ours, _ = stream("cotta", images, [0], level=1.0)
    teacher = with_own_statistics(network_of())
    found = []
    for box in ((48, 64), (72, 96)):
        small = images.read(0).image.permute(1, 2, 0).numpy()
        small = cv2.resize(small, box[::-1], interpolation=cv2.INTER_LINEAR)
        small = torch.from_numpy(small).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            for view in (teacher.infer(small), teacher.infer(small.flip(-1)).flip(-1)):
                found.append(F.interpolate(view, (48, 64), mode="bilinear", align_corners=False))
    theirs = torch.stack(found).mean(0)[0].argmax(0)
    assert (ours[0] == theirs).float().mean() > 0.99
    plain, _ = stream("cotta", images, [0])
    assert not torch.equal(ours[0], plain[0])


def test_the_network_as_it_was_is_asked_how_sure_it_is_and_is_sure_from_the_level_on(images):
    eye = eye_of(with_own_statistics(network_of()))
    seen = views(eye.network, images.read(1).image, eye.settings, CPU, nullcontext())
    sure = float(labels_and_confidence(seen, (48, 64))[1].mean())  # to the bit
    with torch.no_grad():
        logits = eye.network.infer(batch(images, 1))
    theirs = F.interpolate(logits, (48, 64), mode="bilinear", align_corners=False).softmax(1).amax(1)
    assert sure == pytest.approx(theirs.mean().item(), abs=1e-5)

    def looks(level):
        """How often the teacher, which is the student at once, looks at the second image: two sizes, and mirrored."""
        _, online = stream("cotta", images, [0], decay=0.0, lr=0.1)
        online.level, seen = level, []
        conv = next(module for module in online.teacher.modules() if isinstance(module, nn.Conv2d))
        conv.register_forward_hook(lambda *_: seen.append(1))
        list(look([online.eye], images, online.told, title="t", indices=[1], gradients=True, at_rest=False))
        return len(seen)

    assert (looks(sure), looks(math.nextafter(sure, 1))) == (1, 4)


def test_after_a_reset_the_same_weights_are_restored_again(images):
    _, online = stream("cotta", images, [0], restore=0.5)
    first = [parameter.detach().clone() for parameter in online.learns]
    online.reset()
    list(look([online.eye], images, online.told, title="t", indices=[0], gradients=True, at_rest=False))
    assert all(torch.equal(a, b) for a, b in zip(online.learns, first, strict=True))


def test_restored_weights_are_those_of_the_start_and_the_same_each_time(images):
    _, all_back = stream("cotta", images, restore=1.0)
    start = dict(network_of().named_parameters())
    assert all(torch.equal(parameter, start[name]) for name, parameter in all_back.network.named_parameters())
    (_, one), (_, other) = (stream("cotta", images, restore=0.5) for _ in range(2))
    kept = [(a == start[name]).float().mean() for name, a in one.network.named_parameters() if a.numel() > 500]
    assert 0.4 < np.mean(kept) < 0.6
    assert all(torch.equal(a, b) for a, b in zip(one.learns, other.learns, strict=True))


def test_batchnorms_statistics_are_of_the_runs_and_all_images_so_far(images):
    _, online = stream("batchnorm", images, [0, 1])
    first = next(name for name, module in online.network.named_modules() if module is online.norms[0])
    inputs = []
    theirs = network_of()
    norm = theirs.get_submodule(first)
    # The first batch norm in the network sees what it would see anyway.
    hook = norm.register_forward_pre_hook(lambda _, given: inputs.append(given[0].double()))
    with torch.no_grad():
        for i in (0, 1):
            theirs.infer(batch(images, i))
    hook.remove()
    values = torch.cat([one.transpose(0, 1).flatten(1) for one in inputs], 1)
    count = values.shape[1] / 2
    mean, var = norm.running_mean.double(), norm.running_var.double()
    total = (2 * count * mean + values.sum(1)) / (4 * count)
    squares = 2 * count * (var + mean**2) + values.square().sum(1)
    moments = online.moments[online.norms[0]]
    torch.testing.assert_close(moments.mean, total, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(moments.variance, squares / (4 * count) - total**2, atol=1e-4, rtol=1e-3)


def test_without_the_runs_own_an_image_is_normalised_by_itself(images):
    ours, _ = stream("batchnorm", images, [1], prior=0.0)
    theirs = with_own_statistics(network_of())
    with torch.no_grad():
        logits = theirs.infer(batch(images, 1))
    assert (ours[0] == logits[0].argmax(0)).float().mean() > 0.999


def test_with_the_runs_own_alone_nothing_changes(images):
    ours, _ = stream("batchnorm", images, [1], prior=1e9)
    with torch.no_grad():
        logits = network_of().infer(batch(images, 1))
    assert (ours[0] == logits[0].argmax(0)).float().mean() > 0.999


@pytest.mark.parametrize("name", ONLINE)
def test_an_episode_knows_nothing_of_the_images_before(name, images):
    alone = [stream(name, images, [i])[0][0] for i in (0, 1, 2)]
    episodic, online = stream(name, images, episodic=True)
    assert all(torch.equal(one, other) for one, other in zip(alone, episodic, strict=True))
    start = network_of().state_dict()
    assert all(torch.equal(value, start[key]) for key, value in online.network.state_dict().items())
    carried, _ = stream(name, images)
    assert torch.equal(carried[0], alone[0]) and not all(
        torch.equal(one, other) for one, other in zip(carried, alone, strict=True)
    )


@pytest.mark.parametrize("name", ONLINE)
def test_memory_does_not_grow_with_the_stream(name, images):
    def held(order):
        online = stream(name, images, order)[1]
        gc.collect()
        found = sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())
        del online
        return found

    held([0])
    assert held([0, 1, 2, 0, 1, 2]) == held([0, 1])


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("tent", {"lr": 0.0}, "tent.lr: must be a number above 0"),
        ("tent", {"lr": float("nan")}, "tent.lr: must be a number above 0"),
        ("cotta", {"decay": 1.5}, "cotta.decay: must be from 0 to 1"),
        ("batchnorm", {"prior": -1.0}, "batchnorm.prior: must be a number of images"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(name, changes, words):
    with pytest.raises(RecipeError, match=words):
        ONLINE[name](eye_of(network_of()), **SETTINGS[name] | changes)


def test_a_network_that_cannot_be_adapted_so_is_refused():
    spec = {"name": "encoder_decoder", "encoder": "tiny", "weights": "scratch", "drop_path": 0.1}
    plain = build(NETWORKS, spec | {"decoder": "deeplab_v2_reduced"}, "network", class_names=SPACE.classes)
    with pytest.raises(RecipeError, match="no batch norm that learns statistics .*use another --method"):
        ONLINE["batchnorm"](eye_of(plain), prior=1.0)
    pooled = build(NETWORKS, spec | {"decoder": "upernet_256", "dropout": 0.1}, "network", class_names=SPACE.classes)
    with pytest.raises(RecipeError, match="nothing to compare in one image"):
        ONLINE["tent"](eye_of(copy.deepcopy(pooled)), **TENT)

"""The loop over images, also for what no command does: a criterion without labels, a network that adapts itself."""

from __future__ import annotations

import math
import weakref
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from evaluation.test_inference import CPU, Pointwise, settings_of
from segda.commands.evaluate import evaluate_runs
from segda.errors import DataError
from segda.evaluation import look as looking
from segda.evaluation.certainty import labels, labels_and_entropy
from segda.evaluation.look import THREADS, Eye, Sight, agreed, keep_memory_to_look, look
from segda.scene import Scene
from small_run import write_run


class Pictures:
    """Random images, and of each the labels that its brightest channel is; counts how many are held at once."""

    def __init__(self, count: int, bad: int | None = None):
        self.count, self.bad, self.held, self.most = count, bad, 0, 0

    def __len__(self) -> int:
        return self.count

    def read(self, i: int, label: bool = False) -> Scene:
        if i == self.bad:
            raise DataError(f"{i}: cannot be read")
        image = torch.from_numpy(np.random.default_rng(i).integers(0, 256, (3, 8, 12), np.uint8))
        self.held += 1
        self.most = max(self.most, self.held)
        weakref.finalize(image, self._gone)
        return Scene(image, image.argmax(0).to(torch.uint8) if label else None, names=(str(i),))

    def _gone(self) -> None:
        self.held -= 1


def eye(network: nn.Module, **settings) -> Eye:
    return Eye(network, settings_of(**settings), CPU, nullcontext())


class Normalised(Pointwise):
    """A batch norm with scale and shift of its own before the classes."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def low_res_logits(self, image):
        return self.conv(self.norm(image))


def test_every_image_is_seen_once_in_order_by_each_eye():
    seen = list(look([eye(Pointwise()), eye(Pointwise(), flip=True)], Pictures(20), lambda sight: sight, title=""))
    assert [sight.index for sight in seen] == list(range(20))
    assert all(sight.scene.label is None and sight.size == (8, 12) for sight in seen)
    assert [len(views) for views in seen[0].by_eye] == [1, 2] and len(seen[0].views) == 3


def test_only_the_images_asked_for_are_seen_in_the_order_asked_for():
    found = look([], Pictures(9), lambda sight: (sight.index, sight.scene.label), title="", indices=[7, 2, 7])
    assert list(found) == [(7, None), (2, None), (7, None)]


def test_a_criterion_without_labels_ranks_networks_by_what_they_say():
    def entropy_of(network: nn.Module) -> float:
        """The mean entropy of all pixels, in nats."""

        def each(sight: Sight) -> float:
            return float(labels_and_entropy(sight.views, sight.size)[1].mean())

        return float(np.mean(list(look([eye(network)], Pictures(5), each, title="entropy"))))

    sure, unsure = Pointwise(), Pointwise()
    with torch.no_grad():
        unsure.conv.weight *= 0.1
        unsure.conv.bias *= 0.1
    images = torch.stack([Pictures(5).read(i).image for i in range(5)]) / 255
    for network in (sure, unsure):
        prob = network.infer(images).softmax(1).detach().double().numpy()
        theirs = -(prob * np.log(prob)).sum(1).mean()
        assert entropy_of(network) == pytest.approx(theirs, rel=1e-5)
    assert entropy_of(sure) < entropy_of(unsure) < math.log(4)


def test_a_network_adapts_itself_from_image_to_image_as_in_a_plain_loop():
    """Tent's outline: batch statistics of the image, one step of scale and shift down the entropy, then the next."""

    def entropy(logits: torch.Tensor) -> torch.Tensor:
        return -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()

    def prepared() -> tuple[Normalised, torch.optim.Optimizer]:
        network = Normalised().train()
        network.requires_grad_(False)
        network.norm.requires_grad_(True)
        return network, torch.optim.SGD(network.norm.parameters(), lr=0.5)

    network, optimiser = prepared()

    def adapt(sight: Sight) -> tuple[float, torch.Tensor]:
        loss = entropy(sight.views[0].logits)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item(), labels(sight.views, sight.size)

    images = Pictures(30)
    ours = list(look([eye(network)], images, adapt, title="", split=False, gradients=True, at_rest=False))

    twin, other = prepared()
    for i, (loss, label) in enumerate(ours):
        logits = twin.low_res_logits(Pictures(30).read(i).image[None] / 255)
        assert loss == pytest.approx(entropy(logits).item(), rel=1e-6)
        assert (label == logits[0].argmax(0)).all()
        other.zero_grad()
        entropy(logits).backward()
        other.step()
    torch.testing.assert_close(network.norm.state_dict(), twin.norm.state_dict())
    assert not torch.equal(network.norm.weight, torch.ones(3))
    assert network.training and np.mean([loss for loss, _ in ours[-5:]]) < ours[0][0]


def test_no_more_images_are_held_than_threads_read():
    images = Pictures(60)
    list(look([eye(Pointwise())], images, lambda sight: float(sight.views[0].logits.mean()), title=""))
    assert images.most <= THREADS + 3  # waiting, being read, before us, and the one before


def test_networks_rest_meanwhile_and_have_no_gradients_unless_asked():
    network = Normalised().train()
    network.conv.eval()

    def each(sight: Sight) -> bool:
        return network.norm.training or sight.views[0].logits.requires_grad

    assert list(look([eye(network)], Pictures(2), each, title="")) == [False, False]
    assert network.norm.training and not network.conv.training


def test_networks_are_as_they_were_after_an_error():
    network = Normalised().train()
    with pytest.raises(DataError, match="3: cannot be read"):
        agreed(look([eye(network)], Pictures(5, bad=3), lambda sight: None, title=""))
    assert network.training


@pytest.mark.parametrize(
    ("every", "kept"),
    [([{"resize": (2048, 1024)}], True), ([{"resize": (2048, 1025)}], False), ([{}], False),
     ([{"resize": (1024, 512)}, {"resize": (4096, 2048)}], False),
     ([{"resize": (1024, 512), "scales": (1.0, 2.0)}], True), ([{"resize": (1024, 512), "scales": (1.0, 2.1)}], False)],
)  # fmt: skip
def test_freed_memory_is_kept_where_no_image_is_seen_large(every, kept, monkeypatch):
    monkeypatch.setattr(looking, "keep_memory", lambda: True)
    assert keep_memory_to_look(settings_of(**one) for one in every) == kept


def test_an_evaluation_on_the_command_line_keeps_memory(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(looking, "keep_memory", lambda: asked.append(1))
    runs = [write_run(tmp_path / name, resize=size) for name, size in (("small", [32, 32]), ("any", None))]
    for run in runs:
        with pytest.raises(DataError):
            evaluate_runs([run], ["cityscapes:val"], root=tmp_path)
    assert asked == [1]

from __future__ import annotations

import pytest
import torch

from segda.errors import DataError
from segda.networks.translator import Generator, PatchDiscriminator, init_weights, translated, upsample


def small(**settings) -> Generator:
    torch.manual_seed(0)
    return Generator(**{"width": 4, "blocks": 1, "upsampling": "transposed"} | settings)


@torch.no_grad()
def test_an_image_of_any_size_is_painted_at_its_size():
    generator = small()
    for height, width in ((16, 24), (17, 24), (10, 11), (8, 9)):
        image = torch.rand(2, 3, height, width)
        painted = translated(generator, image)
        assert painted.shape == image.shape
        assert painted.min() >= 0
        assert painted.max() <= 1


@torch.no_grad()
def test_what_is_missing_to_a_multiple_of_4_is_reflected():
    generator, image = small(), torch.rand(1, 3, 14, 15)
    rows, columns = [*range(14), 12, 11], [*range(15), 13]
    whole = image[:, :, rows][..., columns]
    assert torch.equal(translated(generator, image), translated(generator, whole)[..., :14, :15])


@torch.no_grad()
def test_a_whole_image_is_painted_between_minus_one_and_one():
    generator, image = small(), torch.rand(1, 3, 16, 16)
    assert torch.equal(translated(generator, image), (generator(2 * image - 1) + 1) / 2)


@pytest.mark.parametrize(("network", "side"), [(small(), 8), (PatchDiscriminator(width=2), 24)])
@torch.no_grad()
def test_a_network_says_how_small_an_image_may_be(network, side):
    assert network(torch.rand(1, 3, side, side)).isfinite().all()
    with pytest.raises(DataError, match=f"needs {side} on each side"):
        network(torch.rand(1, 3, side, side - 1))
    with pytest.raises(DataError, match="7 x 20 pixels"):
        translated(small(), torch.rand(1, 3, 7, 20))


def test_batch_norm_leaves_no_bias_before_it():
    biased = {name for name in small(norm="batch").state_dict() if name.endswith("bias") and "conv_block" not in name}
    # Those of the norms, and the last convolution's.
    assert biased == {f"model.{place}.bias" for place in (2, 5, 8, 12, 15, 18)}
    assert {"model.1.bias", "model.4.bias", "model.10.conv_block.1.bias"} <= set(small().state_dict())


def even(upsampling: str) -> torch.Tensor:
    """What an upsampling whose kernel is one everywhere makes of a map that is one everywhere, but for its border."""
    layer = upsample(1, 1, False, upsampling)
    for weight in layer.parameters():
        torch.nn.init.ones_(weight)
    made = layer(torch.ones(1, 1, 6, 6))
    assert made.shape == (1, 1, 12, 12)
    return made[0, 0, 2:-2, 2:-2]


@torch.no_grad()
def test_resizing_gives_each_pixel_the_same_and_a_transposed_convolution_a_checkerboard():
    # By hand: of a kernel of 3 with stride 2, a pixel gets one or two rows and one or two columns.
    theirs = torch.tensor([[1.0, 2.0], [2.0, 4.0]]).repeat(4, 4)
    assert torch.equal(even("transposed"), theirs)
    assert torch.equal(even("resize"), torch.full((8, 8), 9.0))


@torch.no_grad()
def test_a_generator_that_resizes_paints_any_size_and_has_its_own_names():
    generator = small(upsampling="resize")
    assert translated(generator, torch.rand(1, 3, 17, 22)).shape == (1, 3, 17, 22)
    ours, theirs = set(generator.state_dict()), set(small().state_dict())
    assert {name.replace(".2.", ".", 1) for name in ours - theirs} == theirs - ours
    assert len(ours - theirs) == 4


def test_a_training_begins_with_small_weights_and_no_biases():
    generator = Generator(width=16, blocks=2, upsampling="transposed")
    init_weights(generator)
    weights = torch.cat([value.flatten() for name, value in generator.state_dict().items() if name.endswith("weight")])
    assert abs(float(weights.std()) - 0.02) < 2e-4
    assert abs(float(weights.mean())) < 2e-4
    assert all(not value.any() for name, value in generator.named_parameters() if name.endswith("bias"))

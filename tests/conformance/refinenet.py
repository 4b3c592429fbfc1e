"""RefineNet-101 against logits recorded from the code of DANNet's authors (golden/classics), converted both ways."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from classics_weights import GOLDEN, theirs
from golden import assert_near
from segda.commands.convert import convert
from segda.networks.encoder_decoder import EncoderDecoder
from segda.networks.weights.layouts import LAYOUTS, to_theirs
from segda.recipes.recipe import load_recipe
from segda.run import load_network

SPEC = "{name: encoder_decoder, encoder: resnet101, decoder: refinenet, weights: scratch, dropout: 0.5}"


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A run folder, as `segda convert` makes it from a state dict with their names."""
    folder = tmp_path_factory.mktemp("refinenet")
    torch.save(dict(theirs("refinenet")), folder / "theirs.pth")
    recipe = load_recipe("source_only_gta5_cityscapes").override(f"network={SPEC}")
    done = convert(folder / "theirs.pth", folder / "run", recipe=recipe)
    assert (done.style, done.left_out, done.added, done.missing) == ("refinenet", (), ("mean", "deviation"), ())
    return folder / "run"


@torch.no_grad()
def test_logits_equal_the_authors(converted):
    recorded = GOLDEN.npz("dannet_networks.npz")
    exact = recorded["refinenet_main_f64"]
    ours = load_network(converted)
    image = torch.from_numpy(GOLDEN.normal("dannet.net.input", (1, 3, 65, 97)))  # past our normalisation
    assert [level.shape[-2:] for level in ours.encoder(image)] == [(17, 25), (9, 13), (5, 7), (3, 4)]
    logits = ours.decode(ours.encoder(image))
    assert_near(logits, exact, "one pass", "logits")
    logits = ours.double().decode(ours.encoder(image.double()))
    np.testing.assert_allclose(logits.numpy(), exact, rtol=0, atol=1e-12 * np.abs(exact).max())


def test_it_has_the_authors_tensors_and_their_names_come_back(converted):
    with torch.device("meta"):
        ours = EncoderDecoder(
            [str(i) for i in range(19)], encoder="resnet101", decoder="refinenet", weights="scratch", dropout=0.5
        )
    table = GOLDEN.json("weights.json")["refinenet"]
    assert sum(weight.numel() for weight in ours.parameters()) == table["parameters"]
    back, unknown = to_theirs(load_network(converted).state_dict(), LAYOUTS["refinenet"])
    assert unknown == ["mean", "deviation"]
    assert list(back.keys() ^ theirs("refinenet").keys()) == []
    assert all(torch.equal(tensor, theirs("refinenet")[name]) for name, tensor in back.items())

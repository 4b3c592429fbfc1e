"""Networks that are built to be loaded: their parameters are not drawn, all else is."""

from __future__ import annotations

import torch
from torch import nn

from segda import run as runs
from segda.networks.weights.undrawn import Undrawn
from small_run import write_run


class Noisy(nn.Module):
    """Draws a parameter in three ways, and a buffer that no file has."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 4))
        nn.init.kaiming_uniform_(self.weight)
        nn.init.trunc_normal_(tensor=self.weight)
        with torch.no_grad():
            self.weight.normal_()
        self.register_buffer("noise", torch.zeros(5).normal_(), persistent=False)


def test_a_parameter_keeps_what_its_memory_held_and_a_buffer_is_drawn():
    torch.manual_seed(1)
    with Undrawn():
        built = Noisy()
    assert built.weight.eq(0).all()
    torch.manual_seed(1)
    assert torch.equal(built.noise, torch.zeros(5).normal_())


def test_loading_a_network_leaves_the_random_numbers_where_they_are(tmp_path):
    run = write_run(tmp_path / "run", seed=3)
    before = torch.get_rng_state()
    network = runs.load_network(run)
    assert torch.equal(torch.get_rng_state(), before)
    saved = runs.read_tensors(runs.product_path(run, "student"))
    assert all(torch.equal(tensor, saved[name]) for name, tensor in network.state_dict().items())

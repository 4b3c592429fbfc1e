"""What keeps the processes of a training alike. Real ones are in test_ranks.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segda.distributed import group, sync
from segda.distributed.sync_norm import SyncNorm
from segda.errors import RunFailure


class Other:
    """The other one of two processes, which has tensors of its own: what is added up or gathered, in its order."""

    def __init__(self, monkeypatch, *tensors: torch.Tensor):
        self.tensors = list(tensors)
        self.messages = 0
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", "0")
        monkeypatch.setattr(group.dist, "all_reduce", self.add)

    def add(self, flat: torch.Tensor) -> None:
        self.messages += 1
        taken = 0
        while taken < flat.numel():
            value = self.tensors.pop(0).flatten()
            flat[taken : taken + value.numel()] += value
            taken += value.numel()


def test_tensors_are_averaged_whatever_their_shapes_and_however_many_fit_in_a_message(monkeypatch):
    monkeypatch.setattr(group, "BUCKET", 6)
    ours = [torch.rand(2, 2), torch.rand(3), torch.rand(10), torch.rand(()), torch.rand(1, 4).t()]
    theirs = [torch.rand_like(value) for value in ours]
    expected = [(one + other) / 2 for one, other in zip(ours, theirs, strict=True)]
    other = Other(monkeypatch, *theirs)
    group.average(ours)
    for value, mean in zip(ours, expected, strict=True):
        torch.testing.assert_close(value, mean)
    assert other.messages == 4 and not other.tensors


def test_kinds_of_numbers_are_not_mixed_in_a_message(monkeypatch):
    ours = [torch.ones(2), torch.ones(2, dtype=torch.float64), torch.ones(2)]
    other = Other(monkeypatch, *(3 * value for value in ours))
    group.average(ours)
    assert [value.tolist() for value in ours] == [[2.0, 2.0]] * 3 and other.messages == 3


def test_only_what_learns_is_averaged(monkeypatch):
    learns, idle = nn.Linear(2, 1), nn.Linear(2, 1)
    learns.weight.grad, learns.bias.grad = torch.ones(1, 2), torch.ones(1)
    players = {"student": torch.optim.SGD([*learns.parameters(), *idle.parameters()], lr=1)}
    Other(monkeypatch, 3 * torch.ones(1, 2), 5 * torch.ones(1))
    sync.average_gradients(players)
    assert learns.weight.grad.tolist() == [[2.0, 2.0]] and learns.bias.grad.tolist() == [3.0]
    assert idle.weight.grad is None


def test_running_statistics_of_norms_that_look_are_averaged_and_no_others(monkeypatch):
    module = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2).eval(), nn.BatchNorm2d(2, track_running_stats=False))
    Other(monkeypatch, torch.full((2,), 4.0), torch.full((2,), 3.0))
    sync.average_statistics(module)
    assert module[0].running_mean.tolist() == [2.0, 2.0] and module[0].running_var.tolist() == [2.0, 2.0]
    assert module[1].running_mean.tolist() == [0.0, 0.0]


@pytest.fixture
def three(monkeypatch):
    """Three processes; `others` are what the second and the third have, None what the first has."""
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(group, "all_succeed", lambda action, **_: action())

    def others(*modules):
        def gathered(marks):
            rows = [marks, *(torch.tensor([list(dict(sync._marks(one)).values())]) for one in modules)]
            return torch.cat(rows)

        monkeypatch.setattr(group, "gathered", gathered)

    return others


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def test_weights_that_are_alike_pass(three):
    three(network(), network())
    sync.compare(network(), 4, 3)


@pytest.mark.parametrize(("tensor", "name"), [(0, "0.weight"), (1, "0.bias"), (4, "1.running_mean")])
def test_the_first_tensor_that_is_not_alike_is_named_with_the_process(three, tensor, name):
    odd = network()
    changed = list(odd.state_dict().values())[tensor]
    changed.view(-1)[-1] = torch.nextafter(changed.view(-1)[-1], torch.tensor(9.0))  # the last bit of the last number
    three(network(), odd)
    with pytest.raises(RunFailure, match=rf"step 4: {name} of process 2 is not what it is in process 0; the last"):
        sync.compare(network(), 4, 3)


def test_all_that_differ_are_counted(three):
    odd = network()
    with torch.no_grad():
        odd[0].weight += 1
        odd[1].running_var += 1
    three(odd, odd)
    with pytest.raises(RunFailure, match=r"0.weight and 1 more tensors of process 1, 2 is not"):
        sync.compare(network(), 4, 3)


def test_a_mark_sees_order_and_sign():
    marks = {
        sync.mark(torch.tensor(values)) for values in ([1.0, 2.0], [2.0, 1.0], [1.0, -2.0], [0.0, 0.0], [-0.0, 0.0])
    }
    assert len(marks) == 5
    assert sync.mark(torch.arange(6.0).view(2, 3).t()) == sync.mark(torch.arange(6.0).view(2, 3).t().contiguous())


def test_alone_a_synchronised_norm_is_a_batch_norm(monkeypatch):
    monkeypatch.setattr(group, "summed", lambda value: value.clone())
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(3, momentum=0.3)
    with torch.no_grad():
        plain.weight.uniform_(0.5, 2)
        plain.bias.uniform_(-1, 1)
    module = sync.synchronise(nn.Sequential(nn.Sequential(nn.BatchNorm2d(3, momentum=0.3))))
    module.load_state_dict({f"0.0.{name}": value for name, value in plain.state_dict().items()})
    assert isinstance(module[0][0], SyncNorm)
    for _ in range(3):
        ours, theirs = (torch.rand(2, 3, 5, 4, requires_grad=True) for _ in range(2))
        theirs.data.copy_(ours.data)
        weights = torch.rand(2, 3, 5, 4)
        (module(ours) * weights).sum().backward()
        (plain(theirs) * weights).sum().backward()
        torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(module[0][0].state_dict(), plain.state_dict())
    torch.testing.assert_close(module[0][0].weight.grad, plain.weight.grad)
    maps = torch.rand(1, 3, 4, 4)
    torch.testing.assert_close(module.eval()(maps), plain.eval()(maps))

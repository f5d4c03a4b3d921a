"""A record holds all that a model computes: from it, torch gets the model's own output."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from optnas.facts.trace import Constants, Node, Tracer


class Net(nn.Module):
    """Two layers with known weights, and any forward pass that uses them."""

    def __init__(self, run: Callable[..., Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.run = nn.Linear(6, 6), nn.Linear(6, 6), run
        for i, parameter in enumerate(self.parameters()):
            nn.init.constant_(parameter, 0.1 * (i + 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, self.first, self.second)


def write_into_views(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    y = first(x)
    y[:, 1:4] = x[:, :3]
    y.t()[0] += 2
    z = y.view(-1)[::2]
    z.mul_(3)
    return second(y)


def alias(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    y = first(x)
    view = y[:, 2:]
    kept = y.clone()
    y.add_(1)  # the view sees it, the clone does not
    return torch.cat([view, kept], 1)


RUNS: dict[str, Callable[..., Tensor]] = {
    "chain": lambda x, a, b: b(torch.relu(a(x))),
    "sum": lambda x, a, b: a(x) + b(x) + x,
    "product": lambda x, a, b: a(x) * torch.sigmoid(b(x)) / 3,
    "scaled": lambda x, a, b: torch.add(a(x), b(x), alpha=2.5) - 1,
    "in place": lambda x, a, b: torch.relu_(a(x)).add_(b(x)),
    "write into views": write_into_views,
    "alias": alias,
    "constants": lambda x, a, b: a(x) + torch.ones(6) * torch.zeros(6).add_(0.5) + torch.full((6,), 2.0),
    "split": lambda x, a, b: torch.cat([part * i for i, part in enumerate(a(x).split(2, 1))], 1),
    "transposed": lambda x, a, b: (a(x).t() @ b(x)).flip(0),
    "reduced": lambda x, a, b: torch.softmax(a(x), 1).mean(0, keepdim=True) + b(x).amax(1, keepdim=True),
    "image": lambda x, a, b: nn.functional.max_pool2d(a(x).view(2, 1, 4, 6)[..., :-1], 2, stride=1).flatten(
        1
    ),
    "unused": lambda x, a, b: (b(x), a(x))[1],
}


def record(run: Callable[..., Tensor]) -> tuple[Tracer, int]:
    """The tracer, whose last node is the output, and how many nodes are of the construction."""
    tracer = Tracer()
    with tracer, Constants(tracer), torch.device("meta"):
        model = Net(run)
    n_built = len(tracer.nodes)
    x = torch.empty(8, 6, device="meta")
    tracer.start(((x,), {}))
    with tracer, Constants(tracer), torch.device("meta"):
        output = model(x)
    read = tracer.read("0", output)
    whole = tracer.nodes[read.source].outputs[read.port]
    tracer.nodes.append(Node("output", (), [read], [whole], False))
    return tracer, n_built


@pytest.mark.parametrize("name", RUNS)
def test_a_record_computes_what_the_model_computes(name: str, interpreter: ModuleType) -> None:
    tracer, _ = record(RUNS[name])
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    computed = interpreter.compute(interpreter.of_record(tracer.nodes), x.clone())
    torch.testing.assert_close(computed, Net(RUNS[name])(x.clone()))
    assert not tracer.blind


@pytest.mark.parametrize("name", RUNS)
def test_flops_are_those_of_torch(name: str) -> None:
    tracer, _ = record(RUNS[name])
    with FlopCounterMode(display=False) as counter:
        Net(RUNS[name])(torch.zeros(8, 6))
    assert tracer.flops == counter.get_total_flops()


def test_the_construction_lasts_and_the_forward_pass_does_not() -> None:
    tracer, n_built = record(RUNS["chain"])
    lasting = [node.lasting for node in tracer.nodes]
    assert all(lasting[:n_built])
    assert not any(lasting[n_built:])
    model = Net(RUNS["chain"])
    tracer.mark("parameter", model.parameters())  # not those that were recorded
    assert not any(node.held_as for node in tracer.nodes)

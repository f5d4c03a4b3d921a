"""What is left out computes nothing: the graph of a model still gives the model's own output."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from optnas.facts.graph import Graph, reduce
from optnas.facts.trace import Constants, Tracer

Run = Callable[..., Tensor]
SIZE = 4


class Net(nn.Module):
    def __init__(self, run: Run) -> None:
        super().__init__()
        self.layers, self.run = nn.ModuleList(nn.Linear(SIZE, SIZE) for _ in range(3)), run
        for i, parameter in enumerate(self.parameters()):
            nn.init.constant_(parameter, 0.1 * (i + 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, *self.layers)


def graph(run: Run) -> Graph:
    tracer = Tracer()
    with tracer, Constants(tracer), torch.device("meta"):
        model = Net(run)
    x = torch.empty(5, SIZE, device="meta")
    tracer.start(((x,), {}))
    with tracer, Constants(tracer), torch.device("meta"):
        output = model(x)
    tracer.mark("parameter", model.parameters())
    return reduce(tracer.nodes, [tracer.read("0", output)], "")


def assert_computes(run: Run, interpreter: ModuleType) -> None:
    x = torch.randn(5, SIZE, generator=torch.Generator().manual_seed(0))
    computed = interpreter.compute(interpreter.of_graph(*graph(run)), x)
    torch.testing.assert_close(computed, Net(run)(x.clone()))


def operations(run: Run) -> list[str]:
    return sorted(label.decode().split("'")[1].partition(".")[0] for label in graph(run)[0])


PLAIN: Run = lambda x, a, b, c: torch.relu(a(x))  # noqa: E731  # as all others here
# name -> a forward pass that computes the same as PLAIN, with more
IDENTITIES: dict[str, Run] = {
    "clone": lambda x, a, b, c: torch.relu(a(x).clone()),
    "plus zero": lambda x, a, b, c: torch.relu(a(x) + 0),
    "times one": lambda x, a, b, c: torch.relu(a(x) * 1) / 1,
    "plus zeros": lambda x, a, b, c: torch.relu(a(x) + torch.zeros(5, SIZE)),
    "zeros plus": lambda x, a, b, c: torch.zeros_like(x) + torch.relu(a(x)),
    "minus what is zero": lambda x, a, b, c: torch.relu(a(x)) - torch.tanh(b(x) * 0),
    "a branch that nobody reads": lambda x, a, b, c: (b(c(x)), torch.relu(a(x)))[1],
    "written over": lambda x, a, b, c: torch.empty_like(x).copy_(torch.relu(a(x))),
    "there and back": lambda x, a, b, c: torch.relu(a(x)).t().contiguous().t(),
}
# forward passes in which nothing may go
DIFFERENT: dict[str, Run] = {
    "broadcast": lambda x, a, b, c: torch.relu(a(x)[:1]) + torch.zeros(5, SIZE),
    "minus from zero": lambda x, a, b, c: torch.zeros_like(x) - a(x),
    "times two": lambda x, a, b, c: a(x) * 2,
    "zeros with a bias": lambda x, a, b, c: a(x * 0),
    "cosine of zero": lambda x, a, b, c: a(x) + torch.cos(x * 0),
    "softmax of zero": lambda x, a, b, c: a(x) + torch.softmax(b(x) * 0, 1),
    "alpha": lambda x, a, b, c: torch.add(a(x), b(x), alpha=3),
    "a sum used twice": lambda x, a, b, c: (a(x) + b(x)) * (a(x) + b(x) + c(x)),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_what_computes_nothing_goes(name: str, interpreter: ModuleType) -> None:
    assert_computes(IDENTITIES[name], interpreter)
    if name != "there and back":  # it lies differently in memory, so it is kept as it is
        assert operations(IDENTITIES[name]) == operations(PLAIN)


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_computes_something_stays(name: str, interpreter: ModuleType) -> None:
    assert_computes(DIFFERENT[name], interpreter)


def test_sums_join_only_where_nobody_else_reads_them() -> None:
    def n_sums(run: Run) -> int:
        return operations(run).count("sum")

    assert n_sums(lambda x, a, b, c: a(x) + b(x) + c(x)) == 1
    assert n_sums(lambda x, a, b, c: a(x) + (b(x) + c(x))) == 1

    def shared(x: Tensor, a: nn.Module, b: nn.Module, c: nn.Module) -> Tensor:
        inner = a(x) + b(x)
        return (inner + c(x)) * inner

    assert n_sums(shared) == 2


def expression(tree: object, x: Tensor, layers: tuple[nn.Module, ...]) -> Tensor:
    if isinstance(tree, int):
        return (x, layers[0](x), layers[1](x), torch.zeros_like(x), x * 0)[tree]
    op, *parts = tree  # type: ignore[misc]  # a tuple
    values = [expression(part, x, layers) for part in parts]
    if op in ("relu", "tanh", "neg", "clone", "abs"):
        return getattr(torch, op)(values[0])
    return {"+": torch.add, "-": torch.sub, "*": torch.mul}[op](*values)


UNARY, BINARY = st.sampled_from(["relu", "tanh", "neg", "clone", "abs"]), st.sampled_from(["+", "-", "*"])
TREES = st.recursive(
    st.integers(0, 4),
    lambda inner: st.one_of(st.tuples(UNARY, inner), st.tuples(BINARY, inner, inner)),
    max_leaves=8,
)


@settings(deadline=None, max_examples=60)
@given(TREES)
def test_any_expression_computes_the_same(interpreter: ModuleType, tree: object) -> None:
    assert_computes(lambda x, *layers: expression(tree, x, layers).clone(), interpreter)

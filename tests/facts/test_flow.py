import pytest
import torch
from torch import nn
from torch.nn import functional as F

from optnas.facts import count_flops
from optnas.facts.flow import Edge, flow
from optnas.hub.nasbench201 import EDGES, network
from optnas.trial import replay

SHAPE = (2, 4, 6, 6)


class Net(nn.Module):
    """Three 3x3 convolutions and a forward pass that uses them as it likes."""

    def __init__(self, forward) -> None:
        super().__init__()
        self.run = forward
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))

    def forward(self, x):
        return self.run(x, *self.convs)


def seen(forward):
    with torch.device("meta"):
        return flow(Net(forward), SHAPE)


def edges(forward):
    return [(edge.start, edge.end, edge.families) for edge in seen(forward).edges]


CONV = ("convolution 3",)


def test_a_chain_is_one_edge() -> None:
    found = seen(lambda x, a, b, c: F.relu(b(F.relu(a(x)))).mean((2, 3)))
    families = (*CONV, "activation", *CONV, "activation", "pool")
    assert (found.edges, found.inputs, found.outputs) == ([Edge(0, 1, families)], [0], [1])
    assert found.widths == [4, 4]
    assert dict(found.made) == {"convolution 3": 2, "activation": 2, "pool": 1}


RESIDUAL = [(0, 1, ()), (0, 1, CONV)]
SAME = {
    "the other way round": lambda x, a, b, c: a(x) + x,
    "in place": lambda x, a, b, c: a(x).add_(x),
    "augmented": lambda x, a, b, c: augmented(a(x), x),
    "through views": lambda x, a, b, c: (a(x).flatten(1) + x.flatten(1)).view(SHAPE),
    "a module that does nothing": lambda x, a, b, c: nn.Identity()(x) + a(x),
    "dropout, which evaluation leaves out": lambda x, a, b, c: F.dropout(x, 0.5, False) + a(x),
    "nothing added": lambda x, a, b, c: x + a(x) + torch.zeros_like(x) + c(x * 0.0),
    "a dead branch": lambda x, a, b, c: (b(x), x + a(x))[1],
    "written into an empty tensor": lambda x, a, b, c: torch.empty_like(x).copy_(x + a(x)),
    "an output that is constant": lambda x, a, b, c: (x + a(x), a.weight.sum()),
}


def augmented(y, x):
    y += x
    return y


@pytest.mark.parametrize("other", SAME.values(), ids=SAME)
def test_what_computes_the_same_flows_the_same(other) -> None:
    assert sorted(edges(lambda x, a, b, c: x + a(x))) == RESIDUAL
    assert sorted(edges(other)) == RESIDUAL


def test_a_sum_is_one_point_however_it_is_bracketed() -> None:
    terms = [(0, 1, CONV)] * 3 + [(0, 1, ())]
    assert sorted(edges(lambda x, a, b, c: a(x) + (b(x) + c(x)) + x)) == sorted(terms)
    assert sorted(edges(lambda x, a, b, c: sum([a(x), b(x), c(x), x]))) == sorted(terms)
    assert len(seen(lambda x, a, b, c: a(x) + (b(x) * c(x))).points) == 3  # a product is a point of its own
    assert len(seen(lambda x, a, b, c: a(x) + F.relu(b(x) + c(x))).points) == 3


def test_a_sum_with_other_readers_stays_a_point() -> None:
    def forward(x, a, b, c):
        y = a(x) + x
        return y + b(y)

    assert edges(forward) == [(0, 1, CONV), (0, 1, ()), (1, 2, ()), (1, 2, CONV)]


def test_concatenation_and_parts() -> None:
    def forward(x, a, b, c):
        left, right = x.chunk(2, 1)
        return torch.cat([left, F.relu(right)], 1)

    assert edges(forward) == [(0, 1, ()), (0, 1, ("activation",))]


def test_a_write_into_a_part_keeps_the_rest() -> None:
    def forward(x, a, b, c):
        y = a(x)
        y[:, 0] = b(x)[:, 0]
        return y

    assert sorted(edges(forward)) == [(0, 1, CONV), (0, 1, CONV)]


def test_without_a_path_there_is_nothing_between() -> None:
    found = seen(lambda x, a, b, c: a(torch.zeros_like(x)))
    assert (found.points, found.edges, found.live_flops) == ([], [], 0)
    assert found.made["convolution 3"] == 1
    assert found.flops > 0


class Words(nn.Module):
    """One of each family that reads a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.past = nn.LSTM(8, 8, batch_first=True)
        self.attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, tokens):
        x, _ = self.past(self.embedding(tokens))
        return self.out(self.attention(x)[:, -1])


def test_sequences() -> None:
    words = Words()
    found = flow(words, torch.zeros(2, 5, dtype=torch.long))
    assert dict(found.made) == {
        "gather": 1,
        "recurrent": 1,
        "attention": 1,
        "norm": 2,
        "activation": 1,
        "linear": 3,
    }
    assert words.training


MODELS = {
    "convolutions of all kinds": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 8, 5, stride=2),
            nn.Conv2d(8, 8, 3, groups=8),
            nn.Conv2d(8, 8, 1, groups=2),
            nn.ConvTranspose2d(8, 4, (1, 7)),
            nn.Flatten(),
            nn.LazyLinear(3),
        ),
        {"convolution 5": 1, "depthwise 3": 1, "convolution 1": 1, "convolution 7": 1, "linear": 1},
        (2, 4, 16, 16),
    ),
    "attention": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        {"attention": 1, "norm": 2, "activation": 1, "linear": 2},
        (2, 7, 8),
    ),
    "dilation and one dimension": (
        lambda: nn.Sequential(nn.Conv1d(4, 6, 11, dilation=2), nn.GELU(), nn.AdaptiveAvgPool1d(1)),
        {"convolution 7": 1, "activation": 1, "pool": 1},
        (2, 4, 64),
    ),
}


@pytest.mark.parametrize(("build", "made", "example"), MODELS.values(), ids=MODELS)
def test_families_and_flops(build, made, example) -> None:
    with torch.device("meta"):
        model = build()
    found = flow(model, example)
    assert dict(found.made) == made
    assert found.flops == found.live_flops == count_flops(model, example) // 2


def test_the_published_cell() -> None:
    ops = ("nor_conv_3x3", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "none", "nor_conv_3x3")
    with torch.device("meta"):
        model = network(replay({f"edge.{i}-{j}": op for (i, j), op in zip(EDGES, ops, strict=True)}), cells=1)
    found = flow(model, (2, 3, 32, 32))
    conv3, conv1 = (("activation", f"convolution {k}", "norm") for k in (3, 1))
    cell = [edge for edge in found.edges if edge.start in (1, 2) and edge.end <= 3]
    assert [edge.families for edge in cell] == [(), (*conv3, "pool"), conv1, conv3]
    assert found.flops * 2 == count_flops(model, (2, 3, 32, 32))


def test_a_model_on_the_cpu_is_seen_the_same_and_keeps_its_mode() -> None:
    model = Net(lambda x, a, b, c: x + a(x)).train()
    assert sorted((e.start, e.end, e.families) for e in flow(model, SHAPE).edges) == RESIDUAL
    assert model.training


def test_what_looks_at_values_cannot_be_watched() -> None:
    with pytest.raises(Exception, match="meta"):
        seen(lambda x, a, b, c: a(x) if x.sum().item() > 0 else b(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_model_flows_as_it_was_written() -> None:
    def build():
        return Net(lambda x, a, b, c: x + a(x))

    assert flow(torch.compile(build()), SHAPE) == flow(build(), SHAPE)

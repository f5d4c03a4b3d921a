"""Models that nobody here wrote: they look at values, hold other tensors, take and return objects."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize, weight_norm
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

from optnas.facts import Arguments, count_flops, count_params, sketch
from optnas.facts.sketch import INSTEAD


class Packed(nn.Module):
    """Sequences of several lengths through one recurrent layer."""

    def __init__(self, width=6):
        super().__init__()
        self.lstm = nn.LSTM(3, width, batch_first=True)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0].mean(1)


class Ode(nn.Module):
    """An adaptive solver: how many steps it takes depends on the data."""

    def __init__(self, width=4):
        super().__init__()
        self.f = nn.Linear(width, width)

    def forward(self, y):
        t, h = 0.0, 0.5
        while t < 1:
            k = torch.tanh(self.f(y))
            error = (torch.tanh(self.f(y + h * k)) - k).abs().max().item() * h
            if error < 0.5:
                y, t = y + h * k, t + h
            else:
                h /= 2
        return y


class Crf(nn.Module):
    """Scores of tags, decoded by Viterbi in eval mode."""

    def __init__(self, n_tags=3):
        super().__init__()
        self.emit = nn.Linear(4, n_tags)
        self.transitions = nn.Parameter(torch.zeros(n_tags, n_tags))

    def forward(self, x):
        scores = self.emit(x)
        total = scores[:, 0]
        for i in range(1, x.shape[1]):
            total = torch.logsumexp(total.unsqueeze(2) + self.transitions, 1) + scores[:, i]
        return total if self.training else [row.argmax(-1).tolist() for row in scores]


class Experts(nn.Module):
    """A mixture in which each expert sees the rows that are sent to it."""

    def __init__(self, n_experts=3):
        super().__init__()
        self.gate = nn.Linear(4, n_experts)
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(n_experts))

    def forward(self, x):
        chosen = self.gate(x).argmax(-1)
        out = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            rows = (chosen == i).nonzero().squeeze(1)
            if len(rows):
                out[rows] = expert(x[rows])
        return out


class SoftExperts(nn.Module):
    """A mixture in which every expert sees everything."""

    def __init__(self, n_experts=3):
        super().__init__()
        self.gate = nn.Linear(4, n_experts)
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(n_experts))

    def forward(self, x):
        return torch.einsum(
            "bed,be->bd", torch.stack([e(x) for e in self.experts], 1), self.gate(x).softmax(-1)
        )


class Spike(torch.autograd.Function):
    """A step forward, a smooth slope backward."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient / (1 + 10 * x.abs()) ** 2


class Spiking(nn.Module):
    """Leaky integrate-and-fire neurons over a few steps of time."""

    def __init__(self, leak=0.9):
        super().__init__()
        self.layer, self.leak = nn.Linear(4, 4), leak

    def forward(self, x):
        charge, fired = torch.zeros_like(x), 0
        for _ in range(3):
            charge = self.leak * charge + self.layer(x)
            spike = Spike.apply(charge - 1)
            charge, fired = charge * (1 - spike), fired + spike
        return fired


class Quantized(nn.Module):
    """Quantization-aware: the forward pass sees rounded weights, the gradient does not."""

    def __init__(self, bits=8):
        super().__init__()
        self.layer, self.bits = nn.Linear(4, 4), bits

    def forward(self, x):
        w, top = self.layer.weight, 2 ** (self.bits - 1) - 1
        scale = w.detach().abs().amax() / top
        w = w + ((w / scale).round().clamp(-top, top) * scale - w).detach()
        return F.linear(x, w, self.layer.bias)


class Observed(nn.Module):
    """Quantization-aware as torch has it: observers in the network."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        fake = torch.ao.quantization.FakeQuantize.with_args(
            observer=torch.ao.quantization.MovingAverageMinMaxObserver, quant_min=0, quant_max=255
        )
        self.fake = fake()

    def forward(self, x):
        return self.fake(self.layer(x))


class Complex(nn.Module):
    """Complex weights in the frequencies of a signal."""

    def __init__(self, modes=3):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(modes, dtype=torch.cfloat))

    def forward(self, x):
        spectrum = torch.fft.rfft(x)
        n = len(self.weight)
        return torch.fft.irfft(
            torch.cat([spectrum[:, :n] * self.weight, 0 * spectrum[:, n:]], 1), n=x.shape[1]
        )


class Sparse(nn.Module):
    """A graph convolution whose graph is a sparse buffer."""

    def __init__(self, hops=1):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        index = torch.tensor([[0, 1, 2, 3], [(i + hops) % 4 for i in range(4)]])
        self.register_buffer(
            "graph", torch.sparse_coo_tensor(index, torch.ones(4), (4, 4), check_invariants=True)
        )

    def forward(self, x):
        return torch.stack([torch.sparse.mm(self.graph, self.layer(row)) for row in x])


class Rates(nn.Module):
    """Stochastic depth by a rule: values are read while it is built, and they are always the same."""

    def __init__(self, highest=0.5):
        super().__init__()
        rates = [rate.item() for rate in torch.linspace(0, highest, 3)]
        self.layers = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.Dropout(rate)) for rate in rates))

    def forward(self, x):
        return self.layers(x)


class OfNumpy(nn.Module):
    """Sizes and constants that NumPy computes from tensors."""

    def __init__(self, highest=8):
        super().__init__()
        sizes = np.unique(torch.arange(4, highest, 4).numpy())
        self.layers = nn.Sequential(*(nn.Linear(4, 4) for _ in sizes))
        self.register_buffer("window", torch.from_numpy(np.hanning(4).astype("float32")))

    def forward(self, x):
        return self.layers(x * self.window)


class Polite(nn.Module):
    """Looks at a mask, to save work, unless it is being compiled."""

    def __init__(self, width=5):
        super().__init__()
        self.a, self.b = nn.Linear(4, width), nn.Linear(width, 2)

    def forward(self, x, mask):
        x = self.a(x)
        if torch.compiler.is_compiling() or not mask.all():
            x = x * mask.unsqueeze(-1)
        return self.b(x)


X = (4, 4)
SEEN = {
    "soft experts": (SoftExperts, X, {"n_experts": 4}),
    "spiking": (Spiking, X, {"leak": 0.5}),
    "quantized": (Quantized, X, {"bits": 4}),
    "complex": (Complex, (4, 8), {"modes": 2}),
    "rates": (Rates, X, {"highest": 0.4}),
    "numpy": (OfNumpy, X, {"highest": 16}),
    "polite": (Polite, (torch.rand(4, 4), torch.ones(4)), {"width": 6}),
}


class Unpacking(nn.Module):
    """Takes a packed sequence."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 6)

    def forward(self, packed):
        return self.lstm(packed)[1][0]


LOOKING = {
    "packed inputs": (Unpacking, pack_sequence([torch.rand(5, 3), torch.rand(2, 3)]), {}),
    "packed": (Packed, (torch.rand(2, 5, 3), torch.tensor([3, 5])), {"width": 7}),
    "ode": (Ode, X, {}),
    "experts": (Experts, (torch.rand(4, 4),), {"n_experts": 4}),
}


@pytest.mark.parametrize("kind", SEEN)
def test_kinds_that_have_a_fingerprint(kind):
    """One that a setting changes, and nothing else."""
    build, example, other = SEEN[kind]
    found = [sketch(build, example), sketch(build, example), sketch(lambda: build(**other), example)]
    assert not found[0].missing
    assert found[0] == found[1]
    assert found[0].fingerprint != found[2].fingerprint
    assert found[0].n_params == count_params(build())


@pytest.mark.parametrize("kind", LOOKING)
def test_kinds_that_look_at_values_have_numbers_and_say_where_they_look(kind):
    build, example, _ = LOOKING[kind]
    found = sketch(build, example)
    assert found.n_params == count_params(build())
    assert found.flops > 0
    assert f"{build.__name__}.forward (line " in found.missing["fingerprint"]
    assert "looks at values" in found.missing["fingerprint"]
    assert found.missing["fingerprint"].endswith(INSTEAD)


@pytest.mark.parametrize(("build", "example"), [(Crf, (2, 3, 4)), (Observed, X), (Sparse, (2, 4, 3))])
def test_kinds_that_may_have_one(build, example):
    found = sketch(build, example)
    assert found.n_params == count_params(build())
    assert found.flops > 0
    assert found.fingerprint is not None or "fault" not in found.missing["fingerprint"]


def test_sparse_graphs_are_told_apart():
    one, two = (sketch(lambda hops=hops: Sparse(hops), (2, 4, 3)) for hops in (1, 2))
    assert one.fingerprint is None or one.fingerprint != two.fingerprint


def test_a_network_drawn_at_random_has_no_fingerprint():
    """Another seed draws another one."""

    def build():
        order = torch.randperm(3).tolist()
        return nn.Sequential(*(nn.Linear(4, 4, bias=i > 0) for i in order))

    assert "build (line" in sketch(build, X).missing["fingerprint"]


@pytest.mark.parametrize("capacity", [1, 100])
def test_shapes_that_values_decide_are_values(capacity):
    """Which rows are left out shows in a shape, and on few rows not even there."""

    class Capacity(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)
            list(torch.linspace(0, 1, 2).tolist())  # on the meta device it cannot be built

        def forward(self, x):
            return self.layer(x[x[:, 0] > 0][:capacity]).sum(0, keepdim=True) + x

    found = sketch(Capacity, (torch.rand(4, 4),))
    assert "Capacity.forward (line" in found.missing["fingerprint"]


def test_what_is_counted_on_the_cpu_is_what_is_counted_on_meta():
    class Attending(nn.Module):
        def __init__(self, looks):
            super().__init__()
            self.looks = looks
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.lstm = nn.LSTM(8, 8, bidirectional=True, batch_first=True)

        def forward(self, x):
            if self.looks:
                float(x.sum())
            return self.lstm(self.attention(x, x, x, need_weights=False)[0])[0]

    on_meta, on_cpu = (sketch(lambda looks=looks: Attending(looks), (2, 5, 8)) for looks in (False, True))
    assert on_meta.fingerprint is not None
    assert on_cpu.fingerprint is None
    assert on_cpu.facts == on_meta.facts
    assert count_flops(Attending(True), (2, 5, 8)) == count_flops(Attending(False), (2, 5, 8))


class Bag:
    """What a library returns: an object with tensors in it."""

    def __init__(self, logits, cache):
        self.logits = logits
        self.cache = cache


@dataclass
class Output:
    logits: torch.Tensor
    loss: torch.Tensor | None = None


@pytest.mark.parametrize(
    "wrap",
    [lambda y, z: Bag(y, [z]), lambda y, z: Output(y, z), lambda y, z: {"logits": y, "more": (z, None)}],
)
def test_tensors_in_objects_that_a_model_returns_count(wrap):
    class Returning(nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.scaled = lambda y: y * scale

        def forward(self, x):
            y = self.layer(x)
            return wrap(y, self.scaled(y.tanh()))

    found = [sketch(lambda scale=scale: Returning(scale), X).fingerprint for scale in (2, 2, 3)]
    assert found[0] == found[1]
    assert found[0] not in (None, found[2])


def test_examples_that_are_no_tensors():
    class Graphs(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, bag, more=None, *, hard=False):
            x = self.layer(bag.logits)
            return x.round() if hard else x

    bag = Bag(torch.rand(6, 3), None)
    soft, hard = (sketch(Graphs, Arguments(bag, None, hard=hard)) for hard in (False, True))
    assert soft.flops == hard.flops == 2 * 3 * 2
    assert None not in (soft.fingerprint, hard.fingerprint)
    assert soft.fingerprint != hard.fingerprint

    class Images(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, images):
            return torch.stack([self.layer(image).mean((1, 2)) for image in images])

    found = sketch(Images, Arguments([torch.rand(3, 8, 8), torch.rand(3, 6, 6)]))
    assert found.fingerprint is not None
    assert found.flops == 2 * 4 * 3 * 9 * (64 + 36) // 2


def pretrained(how, rank=2):
    """A small network with loaded weights, adapted in several ways."""
    torch.manual_seed(0)
    weights = {"0.weight": torch.rand(4, 4), "0.bias": torch.zeros(4)}
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    if how != "from scratch":
        other = {name: value + (how == "of another source") for name, value in weights.items()}
        model.load_state_dict(other, strict=False)
    if how == "frozen":
        model[0].requires_grad_(False)
    if how == "adapter":
        model[0].requires_grad_(False)
        parametrize.register_parametrization(model[0], "weight", LowRank(rank))
    if how == "normalized":
        weight_norm(model[0])
    return model


class LowRank(nn.Module):
    """LoRA (arXiv:2106.09685): a low-rank addition to weights that stay."""

    def __init__(self, rank):
        super().__init__()
        self.up, self.down = nn.Parameter(torch.zeros(4, rank)), nn.Parameter(torch.randn(rank, 4))

    def forward(self, weight):
        return weight + self.up @ self.down / math.sqrt(self.down.shape[0])


def test_pretrained_weights_are_told_apart_by_source_and_by_what_is_trained():
    ways = ["from scratch", "fine-tuned", "of another source", "frozen", "adapter"]
    found = {how: sketch(lambda how=how: pretrained(how), X).fingerprint for how in ways}
    found["adapter of rank 3"] = sketch(lambda: pretrained("adapter", 3), X).fingerprint
    assert None not in found.values()
    assert len(set(found.values())) == len(found)
    assert found["frozen"] == sketch(lambda: pretrained("frozen"), X).fingerprint


def test_when_a_network_is_to_be_unfrozen_tells_it_apart():
    """A schedule is kept where the training finds it: as an attribute of the model."""

    def build(epoch):
        model = pretrained("frozen")
        model.unfreeze_after = epoch
        return model

    found = [sketch(lambda epoch=epoch: build(epoch), X).fingerprint for epoch in (1, 1, 5)]
    assert found[0] == found[1]
    assert found[0] not in (None, found[2])

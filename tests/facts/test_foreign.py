"""Models that nobody here wrote: they look at values, hold other tensors, take and return objects."""

import math

import numpy as np
import pytest
import torch
from fixtures.foreign import (
    Bag,
    Complex,
    Crf,
    Experts,
    Observed,
    Ode,
    Output,
    Packed,
    Quantized,
    SoftExperts,
    Sparse,
    Spiking,
    Unpacking,
)
from torch import nn
from torch.nn.utils import parametrize, weight_norm
from torch.nn.utils.rnn import pack_sequence

from optnas.facts import Arguments, count_flops, count_params, sketch
from optnas.facts.sketch import INSTEAD


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

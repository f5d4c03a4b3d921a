import importlib
import itertools
import operator
import random
import subprocess
import sys
import warnings
from typing import ClassVar

import networkx as nx
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from optnas.facts import Sketch, count_flops, count_params, fingerprint, sketch, untraced
from optnas.facts.trace import Tracer

SHAPE = (2, 4, 6, 6)


class Net(nn.Module):
    """`layers` 3x3 convolutions c0, c1, ... and a parameter-free forward pass that uses them."""

    def __init__(self, forward, layers=3, bias=False) -> None:
        super().__init__()
        self.run = forward
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1, bias=bias) for _ in range(layers))

    def forward(self, x):
        return self.run(x, *self.convs)


def of(forward, example=SHAPE, **kwargs):
    return fingerprint(lambda: Net(forward, **kwargs), example)


BASE = of(lambda x, a, b, c: b(F.relu(a(x))))

SAME = {
    "clone": lambda x, a, b, c: b(F.relu(a(x).clone())),
    "detach of the input": lambda x, a, b, c: b(F.relu(a(x.detach()))),
    "copy of the same dtype": lambda x, a, b, c: b(F.relu(a(x)).to(torch.float32, copy=True)),
    "views there and back": lambda x, a, b, c: b(
        F.relu(a(x)).flatten(1).reshape(SHAPE).transpose(1, 2).transpose(1, 2)
    ),
    "identity": lambda x, a, b, c: b(nn.Identity()(F.relu(a(x)))),
    "dropout of nothing": lambda x, a, b, c: b(F.dropout(F.relu(a(x)), 0.0, training=True)),
    "plus 0": lambda x, a, b, c: b(F.relu(a(x)) + 0),
    "sum from 0": lambda x, a, b, c: b(sum([F.relu(a(x))])),
    "times 1": lambda x, a, b, c: b(F.relu(a(x) * 1.0)),
    "divided by 1": lambda x, a, b, c: b(F.relu(a(x) / 1)),
    "plus zeros": lambda x, a, b, c: b(F.relu(a(x)) + torch.zeros_like(x)),
    "zeros plus": lambda x, a, b, c: b(torch.zeros_like(x) + F.relu(a(x))),
    "plus a branch times 0": lambda x, a, b, c: b(F.relu(a(x)) + c(x) * 0.0),
    "plus layers of zero": lambda x, a, b, c: b(F.relu(a(x)) + F.relu(F.avg_pool2d(c(x.mul(0.0)), 3, 1, 1))),
    "minus a dropped-out zero": lambda x, a, b, c: b(F.relu(a(x)) - F.dropout(x * 0, 0.5, training=True)),
    "dead branch": lambda x, a, b, c: (c(x), b(F.relu(a(x))))[1],
    "other names": lambda x, a, b, c: c(F.relu(b(x))),
    "in place": lambda x, a, b, c: b(F.relu(a(x), inplace=True)),
    "written into an empty tensor": lambda x, a, b, c: b(torch.empty_like(x).copy_(F.relu(a(x)))),
}

DIFFERENT = {
    "no relu": lambda x, a, b, c: b(a(x)),
    "another activation": lambda x, a, b, c: b(F.gelu(a(x))),
    "another argument": lambda x, a, b, c: b(F.leaky_relu(a(x), 0.1)),
    "another argument again": lambda x, a, b, c: b(F.leaky_relu(a(x), 0.2)),
    "another order": lambda x, a, b, c: F.relu(b(a(x))),
    "one layer used twice": lambda x, a, b, c: a(F.relu(a(x))),
    "times 2": lambda x, a, b, c: b(F.relu(a(x)) * 2),
    "plus 1": lambda x, a, b, c: b(F.relu(a(x)) + 1),
    "dropout": lambda x, a, b, c: b(F.dropout(F.relu(a(x)), 0.1, training=True)),
    "more dropout": lambda x, a, b, c: b(F.dropout(F.relu(a(x)), 0.2, training=True)),
    "transposed": lambda x, a, b, c: b(F.relu(a(x)).mT),
    "other dtype on the way": lambda x, a, b, c: b(F.relu(a(x).bfloat16()).float()),
    "stopped gradient": lambda x, a, b, c: b(F.relu(a(x)).detach()),
    "sum": lambda x, a, b, c: b(F.relu(a(x)) + x),
    "scaled sum": lambda x, a, b, c: b(torch.add(F.relu(a(x)), x, alpha=2)),
    "difference": lambda x, a, b, c: b(F.relu(a(x)) - x),
    "difference the other way": lambda x, a, b, c: b(x - F.relu(a(x))),
    "twice the sum": lambda x, a, b, c: b(F.relu(a(x)) + F.relu(a(x))),
    "two outputs": lambda x, a, b, c: (b(F.relu(a(x))), c(x)),
    "two outputs in the other order": lambda x, a, b, c: (c(x), b(F.relu(a(x)))),
    "norm of zero": lambda x, a, b, c: (
        b(F.relu(a(x))) + F.layer_norm(x * 0, (6,), bias=c.weight.flatten()[:6])
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_what_computes_nothing_does_not_count(name):
    assert of(SAME[name]) == BASE


def test_everything_else_counts():
    assert len({BASE, *(of(forward) for forward in DIFFERENT.values())}) == len(DIFFERENT) + 1


def test_sums_are_unordered_and_products_commute():
    sums = [
        lambda x, a, b, c: a(x) + b(x) + F.relu(c(x)),
        lambda x, a, b, c: F.relu(c(x)) + (a(x) + b(x)),
        lambda x, a, b, c: sum([b(x), F.relu(a(x)), c(x)]),
        lambda x, a, b, c: a(x).add_(b(x)).add_(F.relu(c(x))),
    ]
    assert len({of(forward) for forward in sums}) == 1
    assert of(lambda x, a, b, c: a(x) * F.relu(b(x))) == of(lambda x, a, b, c: F.relu(a(x)) * b(x))
    assert of(lambda x, a, b, c: a(x) / F.relu(b(x))) != of(lambda x, a, b, c: F.relu(a(x)) / b(x))

    def used_twice(x, a, b, c):
        inner = a(x) + b(x)
        return F.relu(inner) + (inner + c(x))

    def apart(x, a, b, c):
        return F.relu(a(x) + b(x)) + (c(x) + (a(x) + b(x)))

    assert of(used_twice) != of(apart)


def test_two_branches_differ_from_one_used_twice():
    assert of(lambda x, a, b, c: torch.cat([a(x), b(x)])) != of(lambda x, a, b, c: torch.cat([a(x), a(x)]))

    def one(x, a, b, c):
        y = F.relu(a(x))
        return b(y) * c(y)

    assert of(one) != of(lambda x, a, b, c: b(F.relu(a(x))) * c(F.relu(a(x))))


def test_zeros_with_a_bias_and_learned_zeros_are_not_zero():
    plain, plus = lambda x, a, b: a(x), lambda x, a, b: a(x) + b(x * 0)
    assert of(plain, layers=2) == of(plus, layers=2)
    assert of(plain, layers=2, bias=True) != of(plus, layers=2, bias=True)

    class Offset(nn.Module):
        def __init__(self, held) -> None:
            super().__init__()
            zeros = torch.zeros(4)
            self.zeros = nn.Parameter(zeros) if held == "parameter" else zeros
            if held == "buffer":
                del self.zeros
                self.register_buffer("zeros", zeros)
            self.held = held

        def forward(self, x):
            return x * 2 + self.zeros if self.held else x * 2

    forms = [
        fingerprint(lambda held=held: Offset(held), (3, 4)) for held in ("", "parameter", "buffer", "plain")
    ]
    assert len(set(forms)) == 4
    norms = [lambda: nn.Sequential(nn.BatchNorm1d(4)), lambda: nn.Sequential(nn.Identity())]
    assert fingerprint(norms[0], (3, 4)) != fingerprint(norms[1], (3, 4))


def test_writes_into_views_are_seen():
    def write(rows, value, first=None):
        def forward(x, a, b, c):
            y = a(x).clone()
            if first is not None:
                y[first] = 5.0
            y[rows] = value
            return b(y)

        return forward

    forms = [
        of(lambda x, a, b, c: b(a(x))),
        of(write(slice(0, 1), 1.0)),
        of(write(slice(1, 2), 1.0)),
        of(write(slice(0, 1), 2.0)),
        of(write(slice(0, 1), 1.0, slice(1, 2))),
        of(write(slice(1, 2), 1.0, slice(0, 1))),
    ]
    assert len(set(forms)) == len(forms)

    def through_a_view(x, a, b, c):
        y = a(x)
        y.view(-1).relu_()
        return b(y)

    def too_late(x, a, b, c):
        y = a(x)
        z = b(y)
        y.detach().mul_(3)
        return z

    def in_time(x, a, b, c):
        y = a(x)
        y.detach().mul_(3)
        return b(y)

    assert of(through_a_view) not in forms
    assert of(too_late) == of(lambda x, a, b, c: b(a(x))) != of(in_time)


def variant(**kwargs):
    def build():
        layer = nn.Linear(4, 4, **kwargs.get("layer", {}))
        if "init" in kwargs:
            kwargs["init"](layer.weight)
        if kwargs.get("frozen"):
            layer.weight.requires_grad_(False)
        return layer

    return build


def test_parameters_count_by_initialization_shape_dtype_and_training():
    builds = [
        variant(),
        variant(layer={"bias": False}),
        variant(layer={"dtype": torch.float64}),
        variant(frozen=True),
        variant(init=nn.init.zeros_),
        variant(init=nn.init.eye_),
        variant(init=nn.init.orthogonal_),
        variant(init=lambda w: nn.init.normal_(w, 0, 0.1)),
        variant(init=lambda w: nn.init.normal_(w, 0, 0.2)),
        variant(init=lambda w: nn.init.constant_(w[:2].detach(), 1.0)),
        variant(init=lambda w: nn.init.constant_(w[2:].detach(), 1.0)),
        variant(init=lambda w: w.data.copy_(torch.tensor([[1.0] * 4] * 4))),
        variant(init=lambda w: w.data.copy_(torch.tensor([[1.0] * 3 + [2.0]] * 4))),
        variant(init=lambda w: w.data.copy_(torch.from_numpy(np.full((4, 4), 3.0, np.float32)))),
        variant(init=lambda w: w.data.copy_(torch.from_numpy(np.full((4, 4), 4.0, np.float32)))),
        variant(init=lambda w: w.data.copy_(torch.as_tensor(np.full((4, 4), 5.0, np.float32)))),
    ]
    example = torch.zeros(3, 4), torch.zeros(3, 4, dtype=torch.float64)
    forms = [fingerprint(build, example[build is builds[2]]) for build in builds]
    assert [(i, j) for i, j in itertools.combinations(range(len(forms)), 2) if forms[i] == forms[j]] == []
    assert fingerprint(variant(init=nn.init.zeros_), (3, 4)) == fingerprint(
        variant(init=lambda w: nn.init.constant_(w, 0)), (3, 4)
    )


def test_tied_weights_differ_from_equal_ones():
    def build(tied):
        first, second = nn.Linear(4, 4), nn.Linear(4, 4)
        if tied:
            second.weight = first.weight
        return nn.Sequential(first, second)

    assert fingerprint(lambda: build(True), (3, 4)) != fingerprint(lambda: build(False), (3, 4))


def test_real_tensors_count_by_their_content():
    class Mixed(nn.Module):
        def __init__(self, values) -> None:
            super().__init__()
            self.table = torch.tensor(values, device="cpu")

        def forward(self, x):
            return x * self.table

    forms = [fingerprint(lambda v=v: Mixed(v), (3, 2)) for v in ([1.0, 2.0], [1.0, 3.0], [1.0, 2.0])]
    assert forms[0] == forms[2] != forms[1]
    real = [nn.Linear(4, 4), nn.Linear(4, 4)]
    assert fingerprint(lambda: real[0], (3, 4)) != fingerprint(lambda: real[1], (3, 4))


def test_what_cannot_be_seen_has_no_fingerprint():
    with torch.device("meta"):
        made_before = nn.Linear(4, 4)
    assert "was not seen" in sketch(lambda: made_before, (3, 4)).missing["fingerprint"]

    class Coin(nn.Linear):
        def forward(self, x):
            return super().forward(x) if random.random() < 0.5 else x

    coin = sketch(lambda: Coin(4, 4), (3, 4))
    assert "random generator" in coin.missing["fingerprint"]
    assert coin.n_params == 20


class Listed(nn.Module):
    """As the neurons of snnTorch: the class keeps a list of all that were ever made."""

    every: ClassVar[list[nn.Module]] = []

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        self.every.append(self)

    def forward(self, x):
        return self.scale * x


def test_a_network_that_can_reach_another_one_has_no_fingerprint_and_says_where():
    Listed.every.clear()
    with torch.device("meta"):
        Listed()
    found = sketch(Listed, (3, 4))
    assert "made for another one (Listed.every." in found.missing["fingerprint"]
    assert found.facts["n_params"] == 0


def test_gradients_of_ones_own_are_seen():
    def reversal(factor):
        class Reverse(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.factor = factor
                return x.view_as(x)

            @staticmethod
            def backward(ctx, gradient):
                return -ctx.factor * gradient

        return lambda x, a, b, c: b(F.relu(Reverse.apply(a(x))))

    def late(x, a, b, c):
        return reversal(1.0)(a(x), b, c, None)

    assert len({of(reversal(1.0)), of(reversal(2.0)), BASE, of(late)}) == 4
    assert of(reversal(1.0)) == of(reversal(1.0))


def test_lazy_modules_are_like_others():
    def lazy():
        return nn.Sequential(
            nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)
        )

    def eager():
        return nn.Sequential(
            nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3)
        )

    facts = sketch(lazy, SHAPE)
    assert facts == sketch(eager, SHAPE)
    assert facts.n_params == count_params(eager())
    assert facts.flops == count_flops(eager(), SHAPE) // 2


@pytest.mark.parametrize(
    ("build", "example"),
    [
        (lambda: nn.LSTM(4, 5, 2, batch_first=True), (3, 6, 4)),
        (lambda: nn.GRU(4, 5, batch_first=True, bidirectional=True), (3, 6, 4)),
        (lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2), (3, 6, 8)),
        (
            lambda: nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 2)),
            torch.zeros(3, 5, dtype=torch.long),
        ),
        (lambda: nn.Bilinear(3, 4, 5), {"input1": torch.zeros(3, 3), "input2": torch.zeros(3, 4)}),
    ],
)
def test_models_of_every_kind_have_all_facts(build, example):
    facts = sketch(build, example)
    assert facts.missing == {}
    assert facts == sketch(build, example)
    assert facts.n_params == count_params(build())
    assert facts.flops == count_flops(build(), example) // 3


def test_a_batch_of_one_is_enough():
    facts = sketch(lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), (1, 4))
    assert facts.missing == {}
    assert facts.flops == 2 * 4 * 3


def test_failures_are_recorded_and_the_builds_own_errors_pass():
    assert isinstance(sketch(lambda: nn.Linear(3, 4), (2, 5)), Sketch)
    wrong = sketch(lambda: nn.Linear(3, 4), (2, 5))
    assert (wrong.n_params, wrong.flops, wrong.fingerprint) == (16, None, None)
    assert set(wrong.missing) == {"flops", "fingerprint"}

    def looks_at_values():
        return nn.Dropout(torch.rand(1).item())

    seen = sketch(looks_at_values, (2, 3))
    assert (seen.facts, set(seen.missing)) == ({"n_params": 0, "flops": 0}, {"fingerprint"})
    with pytest.raises(ValueError, match=r"has no fingerprint: .*looks_at_values .* looks at values"):
        fingerprint(looks_at_values, (2, 3))

    def broken():
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        sketch(broken, (2, 3))


@pytest.mark.parametrize("lazy", [False, True])
def test_facts_of_a_model_that_looks_at_values_are_had_on_the_cpu(lazy):
    class Looking(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.LazyLinear(3) if lazy else nn.Linear(4, 3)

        def forward(self, x):
            return self.layer(x) * (2 if x.sum().item() > 0 else 1)

    state = torch.get_rng_state()
    found = sketch(Looking, (2, 4))
    assert found.facts == {"n_params": 15, "flops": 2 * 4 * 3}
    assert set(found.missing) == {"fingerprint"}
    assert "told apart by the answers" in found.missing["fingerprint"]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "example", [(torch.rand(2, 4), torch.rand(2, 4)), {"a": torch.rand(2, 4), "b": torch.rand(2, 4)}]
)
def test_models_of_two_inputs_have_facts_and_identity(example):
    class Two(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.first, self.second = nn.Linear(4, width), nn.Linear(width, 2)

        def forward(self, a, b):
            return self.second((self.first(a) - self.first(b)).relu())

    assert sketch(lambda: Two(3), example).facts == {"n_params": 23, "flops": 2 * (2 * 4 * 3) + 2 * 3 * 2}
    assert fingerprint(lambda: Two(3), example) == fingerprint(lambda: Two(3), example)
    assert fingerprint(lambda: Two(3), example) != fingerprint(lambda: Two(4), example)


def test_a_sketch_within_a_sketch_is_none_of_the_outer_one():
    inner = []

    def plain():
        return nn.Sequential(nn.Linear(4, 4))

    def build():
        inner.append(sketch(lambda: nn.Sequential(nn.Linear(4, 9), nn.BatchNorm1d(9)), (2, 4)))
        return plain()

    assert sketch(build, (2, 4)) == sketch(plain, (2, 4))
    assert inner[0] == sketch(lambda: nn.Sequential(nn.Linear(4, 9), nn.BatchNorm1d(9)), (2, 4))
    assert inner[0].missing == {}


def test_work_of_others_while_a_model_is_built_is_real_and_not_recorded():
    def build():
        with untraced():
            assert torch.tensor([1.0, 2.0]).sum().item() == 3.0
        return nn.Linear(4, 4)

    assert sketch(build, (2, 4)) == sketch(lambda: nn.Linear(4, 4), (2, 4))


def test_an_error_of_ours_is_said_to_be_ours(monkeypatch, caplog):
    def fail(*args):
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(Tracer, "_record", fail)
    found = sketch(lambda: nn.Linear(4, 4), (2, 4))
    assert found.facts == {"n_params": 20, "flops": 2 * 4 * 4}
    assert "a fault of optnas" in found.missing["fingerprint"]
    assert "ZeroDivisionError: of ours (" in found.missing["fingerprint"]
    assert "please report it" in caplog.text


def test_an_error_of_ours_after_the_pass_is_said_too(monkeypatch, caplog):
    def fail(*args):
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(importlib.import_module("optnas.facts.sketch"), "reduce", fail)
    found = sketch(lambda: nn.Linear(4, 4), (2, 4))
    assert found.facts == {"n_params": 20, "flops": 2 * 4 * 4}
    assert "a fault of optnas" in found.missing["fingerprint"]
    assert "please report it" in caplog.text


INITS = [name for name in dir(nn.init) if name.endswith("_") and not name.startswith("_")]


def test_every_initialization_of_torch_is_told_from_every_other():
    def build(name):
        layer = nn.Conv1d(4, 4, 3) if name == "dirac_" else nn.Linear(4, 4)
        more = {"constant_": (0.3,), "sparse_": (0.5,)}.get(name, ())
        getattr(nn.init, name)(layer.weight, *more)
        return layer

    found = {
        name: sketch(lambda name=name: build(name), (2, 4) if name != "dirac_" else (2, 4, 6))
        for name in INITS
    }
    assert len(INITS) >= 14
    assert {name: f.missing for name, f in found.items() if f.missing} == {}
    assert len({f.fingerprint for f in found.values()}) == len(INITS)


def test_a_model_that_asks_for_the_meta_device_is_recorded_on_the_cpu():
    def build(value):
        layer = nn.Linear(4, 4)
        if layer.weight.device.type != "meta":
            nn.init.constant_(layer.weight, value)
        return layer

    found = [sketch(lambda value=value: build(value), (2, 4)) for value in (1.0, 1.0, 2.0)]
    assert found[0] == found[1]
    assert found[0].fingerprint not in (None, found[2].fingerprint)


def test_compiled_models_are_seen_and_told_from_others():
    def build(compiled):
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        if compiled == "a copy":
            return torch.compile(model)
        if compiled == "itself":
            model.compile()
        return model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, when it loads its compiler
        found = [sketch(lambda how=how: build(how), (2, 4)) for how in ("", "a copy", "itself")]
    assert [f.facts for f in found] == [{"n_params": 20, "flops": 32}] * 3
    assert found[0].fingerprint not in (None, found[1].fingerprint, found[2].fingerprint)


def test_the_random_state_stays():
    def build():
        nn.init.normal_(torch.empty(3, device="cpu"))
        return nn.Linear(int(random.random() < 2) + int(np.random.default_rng().random() < 2), 2)

    def state():
        return torch.get_rng_state().tolist(), random.getstate()

    before = state()
    sketch(build, (3, 2))
    assert state() == before


def test_a_fingerprint_is_the_same_in_another_process():
    code = """
from torch import nn
from optnas.facts import fingerprint
print(fingerprint(lambda: nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)), (2, 3)))
"""
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other.strip() == fingerprint(lambda: nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)), (2, 3))
    assert len(other.strip()) == 32


class Zero(nn.Module):
    def forward(self, x):
        return x * 0.0


class Cell(nn.Module):
    """A NAS-Bench-201 cell of real modules, without biases or norms."""

    OPS = ("zero", "skip", "conv1", "conv3", "pool")
    EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))

    def __init__(self, ops) -> None:
        super().__init__()
        make = {
            "zero": Zero,
            "skip": nn.Identity,
            "conv1": lambda: nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 1, bias=False)),
            "conv3": lambda: nn.Sequential(nn.ReLU(inplace=False), nn.Conv2d(4, 4, 3, padding=1, bias=False)),
            "pool": lambda: nn.AvgPool2d(3, 1, 1),
        }
        self.layers = nn.ModuleList(make[op]() for op in ops)

    def forward(self, x):
        values = [x]
        for node in (1, 2, 3):
            terms = [
                layer(values[start])
                for (start, end), layer in zip(self.EDGES, self.layers, strict=True)
                if end == node
            ]
            values.append(sum(terms))
        return values[3]


def without_symmetry(cell):
    """Cells that compute the same as `cell`, written otherwise: nodes swapped, dead ops made zero."""
    ops = dict(zip(Cell.EDGES, cell, strict=True))
    if ops[1, 2] == "zero":
        swapped = {(0, 1): ops[0, 2], (0, 2): ops[0, 1], (1, 3): ops[2, 3], (2, 3): ops[1, 3]}
        yield tuple({**ops, **swapped}[edge] for edge in Cell.EDGES)
    if ops[2, 3] == "zero":
        yield tuple({**ops, (0, 2): "zero", (1, 2): "zero"}[edge] for edge in Cell.EDGES)
    if ops[0, 1] == "zero":
        yield tuple({**ops, (1, 2): "zero", (1, 3): "zero"}[edge] for edge in Cell.EDGES)


def test_traced_cells_fall_into_the_classes_of_symbolic_ones():
    cells = random.Random(0).sample(list(itertools.product(Cell.OPS, repeat=6)), 60)
    cells += [other for cell in cells for other in without_symmetry(cell)]
    traced = {cell: fingerprint(lambda cell=cell: Cell(cell), SHAPE) for cell in cells}
    symbolic = {cell: symbolic_graph(cell) for cell in cells}
    pairs = list(itertools.combinations(traced, 2))
    equal = [nx.is_isomorphic(symbolic[a], symbolic[b], node_match=operator.eq) for a, b in pairs]
    assert 10 < sum(equal) < len(pairs) / 2
    assert [traced[a] == traced[b] for a, b in pairs] == equal


def symbolic_graph(cell):
    """The independent oracle: a networkx graph of the ops that matter."""
    graph, value = nx.MultiDiGraph(), {0: "in"}
    graph.add_node("in", op="in")
    for node in (1, 2, 3):
        graph.add_node(node, op="sum")
        for (start, end), op in zip(Cell.EDGES, cell, strict=True):
            if end == node and op != "zero" and value[start] is not None:
                term = value[start] if op == "skip" else (start, end)
                if op != "skip":
                    graph.add_node(term, op=op)
                    graph.add_edge(value[start], term)
                graph.add_edge(term, node)
        terms = [start for start, _ in graph.in_edges(node)]
        value[node] = node if len(terms) > 1 else terms[0] if terms else None
    if value[3] is None:
        return nx.MultiDiGraph()
    graph = nx.MultiDiGraph(graph.subgraph(nx.ancestors(graph, value[3]) | {value[3]}))
    for node in (1, 2):  # a sum that only feeds one other sum joins it
        users = [user for _, user in graph.out_edges(node)] if node in graph else []
        if len(users) == 1 and users[0] in (1, 2, 3):
            graph.add_edges_from((start, users[0]) for start, _ in list(graph.in_edges(node)))
            graph.remove_node(node)
    graph.nodes[value[3]]["op"] += " out"
    return graph


def test_twenty_cells_of_equal_branches():
    def build(order):
        class Symmetric(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.branches = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(4))

            def forward(self, x):
                return sum(F.relu(self.branches[i](x)) for i in order)

        return nn.Sequential(*(Symmetric() for _ in range(20)))

    assert fingerprint(lambda: build([0, 1, 2, 3]), SHAPE) == fingerprint(lambda: build([2, 0, 3, 1]), SHAPE)
    assert fingerprint(lambda: build([0, 1, 2, 3]), SHAPE) != fingerprint(lambda: build([0, 1, 2, 2]), SHAPE)


def test_modes_stay_as_the_space_left_them():
    norm = nn.BatchNorm1d(4).eval()
    model = nn.Sequential(nn.Linear(4, 4), norm, nn.Dropout(0.5))
    sketch(lambda: model, (2, 4))
    assert [module.training for module in model] == [True, False, True]

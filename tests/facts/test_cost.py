import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from optnas.facts import as_inputs, count_flops, count_params, flops_by_operator, materialize
from optnas.facts.cost import other_numbers


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x)[0]


class Recurrent(nn.Module):
    def __init__(self, kind, dtype) -> None:
        super().__init__()
        self.rnn = kind(6, 5, num_layers=2, batch_first=True, bidirectional=True, dtype=dtype)

    def forward(self, x):
        return self.rnn(x)[0]


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(5, 4)

    def forward(self, a, b):
        return self.left(a) + self.right(b)


MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 2)), (4, 7)),
    "cnn": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.LazyLinear(4)),
        (2, 3, 9, 9),
    ),
    "depthwise": (lambda: nn.Conv2d(8, 8, 3, groups=8, padding=1), (2, 8, 6, 6)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 6, 4, stride=2), (2, 3, 5, 5)),
    "attention": (Attention, (2, 5, 8)),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (2, 5, 8)),
    # float64, because the CPU has a fused float32 LSTM whose operations FlopCounterMode cannot see.
    "lstm": (lambda: Recurrent(nn.LSTM, torch.float64), torch.zeros(2, 4, 6, dtype=torch.float64)),
    "gru": (lambda: Recurrent(nn.GRU, torch.float32), (2, 4, 6)),
    "tokens": (lambda: nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 3)), torch.randint(10, (2, 7))),
    "two inputs": (lambda: nn.Bilinear(3, 4, 5), (torch.zeros(2, 3), torch.zeros(2, 4))),
    "by name": (Named, {"b": torch.zeros(2, 5), "a": torch.zeros(2, 3)}),
}


@pytest.mark.parametrize("name", MODELS)
def test_flops_on_meta_equal_those_counted_on_real_tensors(name):
    build, example = MODELS[name]
    model = materialize(build(), example)
    args, kwargs = as_inputs(example, "cpu")
    with FlopCounterMode(display=False) as counter:
        model(*args, **kwargs)
    assert count_flops(model, example) == counter.get_total_flops()
    with torch.device("meta"):
        unreal = materialize(build(), example)
    assert count_flops(unreal, example) == counter.get_total_flops()
    assert count_params(unreal) == count_params(model)


def test_flops_by_hand():
    conv = nn.Conv2d(3, 8, 3, padding=1)
    assert count_flops(conv, (2, 3, 10, 10)) == 2 * (2 * 8 * 10 * 10) * (3 * 3 * 3)
    depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    assert count_flops(depthwise, (1, 8, 10, 10)) == 2 * (8 * 10 * 10) * (3 * 3)
    query_key_value_out = 4 * 2 * (2 * 5) * 8 * 8
    scores_and_mix = 2 * 2 * 2 * 5 * 5 * 8
    assert count_flops(Attention(), (2, 5, 8)) == query_key_value_out + scores_and_mix
    four_gates = 2 * (2 * 4) * (6 + 5) * (4 * 5)
    assert count_flops(nn.LSTM(6, 5, batch_first=True), (2, 4, 6)) == four_gates


def test_counting_leaves_the_model_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    model[1].eval()
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    random_state = torch.get_rng_state()
    count_flops(model, (2, 3, 8, 8))
    materialize(model, (2, 3, 8, 8))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random_state)


def test_a_model_that_looks_at_values_is_counted_where_it_is():
    class Looking(nn.Linear):
        def forward(self, x):
            return super().forward(x) if x.sum().item() == 0 else x

    assert count_flops(Looking(4, 3), (2, 4)) == 2 * 2 * 4 * 3


def test_shared_parameters_count_once_and_frozen_ones_count():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(10, 4)
            self.head = nn.Linear(4, 10)
            self.head.weight = self.embedding.weight

        def forward(self, x):
            return self.head(self.embedding(x))

    tied = Tied()
    tied.head.bias.requires_grad_(False)
    assert count_params(tied) == 40 + 10
    assert count_flops(tied, torch.zeros(2, 3, dtype=torch.long)) == 2 * 6 * 4 * 10


def test_lazy_models_are_refused_until_materialized():
    model = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d())
    for fact in (count_params, lambda m: count_flops(m, (2, 4))):
        with pytest.raises(ValueError, match="weight' of Sequential is lazy"):
            fact(model)
    assert materialize(model, (2, 4)) is model
    assert count_params(model) == 15 + 6


def test_materialize_shows_shape_errors_and_restores_the_mode():
    model = nn.Linear(3, 4)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        materialize(model, (2, 5))
    assert model.training


def test_a_wrong_shape_is_an_error_of_the_count_too():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        count_flops(nn.Linear(3, 4), (2, 5))


@pytest.mark.parametrize("example", [None, "3x32x32", (), {}, (1.5, 2), (True, 2), {"x": 3}, object()])
def test_bad_examples_say_what_to_give(example):
    with pytest.raises(TypeError, match="give a shape with the batch dimension"):
        as_inputs(example, "cpu")


def test_a_shape_with_a_zero_is_refused():
    with pytest.raises(ValueError, match="size below 1"):
        as_inputs((0, 3), "cpu")


def test_flops_by_operator_add_up() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5))
    found = flops_by_operator(model, (2, 3, 8, 8))
    assert found == {"convolution": 2 * 2 * 4 * 36 * 27, "addmm": 2 * 2 * 144 * 5}
    assert sum(found.values()) == count_flops(model, (2, 3, 8, 8))
    assert flops_by_operator(nn.ReLU(), (2, 3)) == {}


@pytest.mark.parametrize(
    ("model", "given", "wanted"),
    [
        (nn.Conv2d(3, 2, 3), torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "on torch.float32 it runs"),
        (nn.LSTM(3, 2), torch.zeros(2, 4, 3, dtype=torch.float64), "on torch.float32 it runs"),
        (nn.Embedding(5, 2), torch.zeros(2, 4), "on torch.int64 it runs"),
        (nn.Linear(3, 2), torch.zeros(2, 4, dtype=torch.uint8), ""),  # another kind would not help
        (nn.Linear(3, 2), torch.zeros(2, 4), ""),
    ],
)
def test_inputs_of_the_wrong_kind_of_number_are_told_apart_from_those_of_a_wrong_shape(model, given, wanted):
    with pytest.raises((RuntimeError, ValueError)):
        model(given)
    told = other_numbers(model, given)
    assert wanted in told
    assert (str(given.dtype) in told) == bool(wanted)

"""Modules that infer what they get: nothing is counted, saved or loaded before."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from optnas.facts import count_params, sketch
from optnas.space import blocks
from optnas.space.blocks import Attention, Inferred, Residual
from optnas.trial import Draw

MAKERS = {
    "attention": (lambda: Attention(2, positions="relative"), (2, 3, 8)),
    "block": (lambda: blocks.encoder_block(Draw(lambda *_: 2), dropout=0.2, drop_path=0.2), (2, 3, 8)),
    "recurrent": (lambda: blocks.Recurrent(4, layers=2, dropout=0.3), (2, 3, 8)),
    "temporal": (lambda: blocks.TemporalBlock(4, 3, dropout=0.2), (2, 3, 8)),
    "tokenizer": (lambda: blocks.FeatureTokenizer(4), (2, 3)),
    "tabular": (lambda: blocks.TabularBlock(2, activation=nn.ReLU(), dropout=0.2), (4, 3)),
    "patches": (lambda: blocks.PatchEmbedding(4, 2, dropout=0.2), (2, 3, 4, 4)),
    "upsample": (lambda: blocks.Upsample("transposed", 2), (2, 3, 4, 4)),
    "head": (lambda: blocks.SequenceHead("mean", 0.2, 3), (2, 3, 8)),
    "group norm": (lambda: blocks.GroupNorm(), (2, 3, 4)),
    "residual": (lambda: Residual(nn.Conv1d(3, 5, 1)), (2, 3, 4)),
    "squeeze": (lambda: blocks.SqueezeExcitation(0.5), (2, 3, 4)),
}
every_maker = pytest.mark.parametrize(("make", "shape"), MAKERS.values(), ids=MAKERS)


@every_maker
def test_a_count_before_the_first_pass_is_refused(make, shape) -> None:
    model = make()
    with pytest.raises(ValueError, match="is lazy and has no shape yet"):
        count_params(model)
    model(torch.randn(shape))
    assert count_params(model) > 0
    assert "not_yet_made" not in str(model.state_dict().keys())


@every_maker
def test_nothing_made_at_the_first_pass_depends_on_the_mode(make, shape) -> None:
    x, model = torch.randn(shape), make()
    modes = [(module, module.training) for module in model.modules()]
    first = model.eval()(x)
    torch.testing.assert_close(model(x), first)  # nothing was dropped out
    for module, training in modes:
        module.training = training
    states = []
    for trained in (model, copy.deepcopy(model).train()):
        torch.manual_seed(0)
        states.append([trained(x), *trained.state_dict().values()])
    torch.testing.assert_close(*states)


@every_maker
def test_device_and_type_are_those_of_the_module(make, shape) -> None:
    model = make().double()
    y = model(torch.randn(shape, dtype=torch.float64))
    assert {p.dtype for p in model.parameters()} == {torch.float64} == {y.dtype}
    with torch.device("meta"):
        model = make()
        model(torch.randn(shape))
    assert all(p.is_meta for p in model.parameters())


@every_maker
def test_it_travels_and_has_a_fingerprint(make, shape) -> None:
    model, x = make(), torch.randn(shape)
    model.eval()(x)
    expected = model(x)
    torch.testing.assert_close(copy.deepcopy(model)(x), expected)
    torch.testing.assert_close(pickle.loads(pickle.dumps(model))(x), expected)
    twin = make().eval()
    twin(x)
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(twin(x), expected)
    found = sketch(make, shape)
    assert found.n_params == count_params(model)
    assert found.fingerprint is not None
    assert found.fingerprint == sketch(make, shape).fingerprint


class Doubler(Inferred):
    def make(self, *inputs: Tensor) -> None:
        self.linear = nn.Linear(inputs[0].shape[1], 2)

    def forward(self, x: Tensor) -> Tensor:
        self.infer(x)
        return self.linear(x)


def test_a_state_is_loaded_into_layers_that_are_there() -> None:
    model = nn.Sequential(Doubler())
    model(torch.randn(1, 3))
    with pytest.raises(ValueError, match=r"^0 has not seen an input yet.*materialize"):
        nn.Sequential(Doubler()).load_state_dict(model.state_dict())
    with pytest.raises(ValueError, match="uninitialized parameter"):
        nn.Sequential(Doubler()).state_dict()
    unmade = copy.deepcopy(Doubler())
    assert unmade(torch.randn(1, 3)).shape == (1, 2)

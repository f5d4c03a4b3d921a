import enum

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from optnas.errors import ParamsMismatchError
from optnas.training.snapshot import files, put, read, shapes, take


class Wrapped(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.head = model, nn.Linear(2, 2)
        self.register_buffer("hidden", torch.zeros(2), persistent=False)


class Extra(nn.Linear):
    state = None

    def get_extra_state(self):
        return self.state

    def set_extra_state(self, state):
        self.state = state


def through_files(snapshot, tmp_path):
    for name, data in zip(("w", "r"), files(snapshot), strict=True):
        (tmp_path / name).write_bytes(data)
    return read(tmp_path / "w", tmp_path / "r")


def there_and_back(model, other, tmp_path):
    """The state of `model`, in a module of its own, through files into `other`."""
    module = Wrapped(model)
    put(through_files(take(module, model, shapes(model)), tmp_path), Wrapped(other))
    return other


def test_all_that_a_module_holds_comes_back(tmp_path):
    module, other = (Wrapped(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))) for _ in range(2))
    module.hidden.fill_(3.0)
    snapshot = take(module, module.model, shapes(module.model))
    with torch.no_grad():
        module.head.weight.zero_()  # a snapshot is a copy
    found = through_files(snapshot, tmp_path)
    put(found, other)
    assert not torch.equal(other.head.weight, module.head.weight)
    assert torch.equal(other.model[0].weight, module.model[0].weight)
    assert torch.equal(other.hidden, torch.full((2,), 3.0))
    plain = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    plain.load_state_dict(torch.load(tmp_path / "w", weights_only=True))
    assert torch.equal(plain[0].weight, module.model[0].weight)


def test_extra_state_comes_back_as_it_was_and_plainly_without_us(tmp_path):
    model = nn.Sequential(Extra(2, 2))
    model[0].state = {"seen": np.arange(3), "rate": np.float64(0.5), "names": ["a"]}
    other = there_and_back(model, nn.Sequential(Extra(2, 2)), tmp_path)
    assert isinstance(other[0].state["seen"], np.ndarray)
    np.testing.assert_array_equal(other[0].state["seen"], np.arange(3))
    plain = torch.load(tmp_path / "w", weights_only=True)["0._extra_state"]
    assert torch.equal(plain["seen"], torch.arange(3))
    assert plain["rate"] == 0.5


class Kind(enum.Enum):
    ONE = 1


def test_extra_state_that_would_run_code_is_named(tmp_path):
    model = nn.Sequential(Extra(2, 2))
    model[0].state = {"kind": Kind.ONE}
    with pytest.raises(ParamsMismatchError, match=r"'model.0._extra_state'.*get_extra_state"):
        there_and_back(model, nn.Sequential(Extra(2, 2)), tmp_path)
    assert torch.load(tmp_path / "w", weights_only=True)["0._extra_state"] == {"kind": 1}


def test_tied_weights_are_stored_once(tmp_path):
    model = nn.Sequential(nn.Linear(200, 200), nn.Linear(200, 200))
    model[1].weight = model[0].weight
    there_and_back(model, model, tmp_path)
    assert (tmp_path / "w").stat().st_size < 1.5 * 4 * 200 * 200


def test_pruned_weights_are_those_of_the_plain_network(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2))
    prune.l1_unstructured(model[0], "weight", amount=0.5)
    other = there_and_back(model, nn.Sequential(nn.Linear(2, 2)), tmp_path)
    assert torch.equal(other[0].weight, model[0].weight)
    assert (other[0].weight == 0).sum() == 2


def test_a_parametrized_layer_needs_the_same_parametrization(tmp_path):
    def altered():
        return nn.Sequential(parametrizations.weight_norm(nn.Linear(2, 2)))

    model = altered()
    other = there_and_back(model, altered(), tmp_path)
    assert torch.equal(other[0].weight, model[0].weight)

import collections
import threading
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from optnas.facts.inputs import Arguments, arguments, as_inputs, batch_size, spread, tensors_in, with_tensors

X, Y = torch.rand(4, 3), torch.arange(4)


class Graph:
    """As libraries of graphs keep them: tensors in an object, here one of them twice."""

    def __init__(self, x):
        self.store = {"x": x, "edges": torch.tensor([[0], [1]]), "names": ["a"]}
        self.again = self.store["x"]


@dataclass
class Pair:
    x: Tensor
    y: Tensor | None


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x


Named = collections.namedtuple("Named", "x y")


@pytest.mark.parametrize(
    ("example", "args", "kwargs"),
    [
        (X, [X], {}),
        ((X, None, True), [X, None, True], {}),
        ((X, [1, 2]), [X, [1, 2]], {}),
        ([X, Y], [X, Y], {}),
        ({"x": X, "y": None, "hard": False}, [], {"x": X, "y": None, "hard": False}),
        ((X, {"y": Y, "n": 3}), [X], {"y": Y, "n": 3}),
        (Arguments([X, Y], {"y": Y}), [[X, Y], {"y": Y}], {}),
        (Arguments(3, how="fast"), [3], {"how": "fast"}),
    ],
)
def test_forms(example, args, kwargs):
    given = arguments(example)
    assert list(given.args) == args
    assert given.kwargs == kwargs


@pytest.mark.parametrize("thing", [Graph(X), Pair(X, None), Slotted(X), Named(X, Y), {"a": [(X,)]}])
def test_tensors_of_any_object_are_found_and_replaced_by_copies(thing):
    before = [tensor.clone() for tensor in tensors_in(thing)]
    assert before
    other = with_tensors(thing, lambda tensor: torch.empty_like(tensor, device="meta"))
    assert type(other) is type(thing)
    assert [tensor.is_meta for tensor in tensors_in(other)] == [True] * len(before)
    args, _ = as_inputs(Arguments(thing), "cpu")
    copies = tensors_in(args[0])
    for copied, original, value in zip(copies, tensors_in(thing), before, strict=True):
        assert torch.equal(copied, value)
        copied.zero_()
        assert torch.equal(original, value)


def test_a_tensor_that_an_object_holds_twice_stays_one():
    graph = with_tensors(Graph(X), Tensor.clone)
    assert graph.again is graph.store["x"]
    assert graph.again is not X
    assert len(tensors_in(graph)) == 2
    first, second = as_inputs((X, X), "cpu")[0]
    assert first is not second


def test_what_cannot_be_copied_is_said():
    with pytest.raises(TypeError, match=r"argument of type list cannot be copied.*call="):
        as_inputs(Arguments([X, threading.Lock()]), "cpu")
    with pytest.raises(TypeError, match="not a description of inputs"):
        as_inputs(Slotted(threading.Lock()), "cpu")


def test_packed_sequences_are_one_argument_that_cannot_go_everywhere():
    packed = pack_sequence([X, X[:2]])
    (copied,), _ = as_inputs(packed, "cpu")
    assert torch.equal(copied.data, packed.data)
    with pytest.raises(TypeError, match="cannot be copied"):
        as_inputs(packed, "meta")


def test_batches():
    assert batch_size(as_inputs((7, 3), "meta")) == 7
    assert batch_size(as_inputs({"scale": torch.tensor(1.0), "x": X}, "cpu")) == 4
    assert batch_size(as_inputs(Arguments([torch.rand(3, 8, 8)] * 2), "cpu")) == 2
    assert batch_size(as_inputs(Graph(X), "cpu")) == 4
    assert batch_size(as_inputs(Arguments(3), "cpu")) == 1


def test_how_inputs_are_passed():
    packed = pack_sequence([X, X[:2]])
    assert spread(X) == ((X,), {})
    assert spread((X, Y)) == ((X, Y), {})
    assert spread({"x": X}) == ((), {"x": X})
    assert spread(packed) == ((packed,), {})
    assert repr(Arguments(3, how="fast")) == "Arguments(3, how='fast')"

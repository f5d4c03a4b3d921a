"""Models as others write them, from a search with an interruption to export and report."""

from __future__ import annotations

import pytest
import torch
from fixtures.foreign import (
    Batches,
    Complex,
    Experts,
    Observed,
    Ode,
    Output,
    Packed,
    Remembering,
    Returning,
    Sparse,
    Tags,
    Unpacking,
    from_search_to_report,
)
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader, StackDataset, TensorDataset

from optnas.tasks import Classification, OwnLoss, Regression

N = 24
LABELS = torch.arange(N) % 4


def random(*shape):
    return torch.randn(N, *shape, generator=torch.Generator().manual_seed(0))


def loader(make):
    return Batches(lambda: DataLoader(range(N), 8, collate_fn=make))


def rows(*tensors):
    """Batches of inputs and targets."""
    *x, y = tensors if len(tensors) > 1 else (*tensors, LABELS)
    return loader(lambda i: (x[0][i] if len(x) == 1 else tuple(part[i] for part in x), y[i]))


def packed():
    data = rows(random(5, 3), 1 + torch.arange(N) % 5, LABELS)
    task = Classification(4, call=lambda model, x: model(*x)[:, :4])
    return lambda trial: Packed(trial.suggest_int("width", 4, 8)), task, data


def packed_inputs():
    x = random(5, 3)

    def make(numbers):
        return pack_sequence([x[i, : 1 + i % 5] for i in numbers], enforce_sorted=False), LABELS[numbers]

    task = Classification(4, call=lambda model, x: model(x)[:, :4])
    return lambda trial: Unpacking(trial.suggest_int("width", 4, 8)), task, loader(make)


def ode():
    y = random(4)

    def space(trial):
        width = trial.suggest_int("width", 2, 6)
        return nn.Sequential(nn.Linear(4, width), Ode(width), nn.Linear(width, 4))

    return space, Regression(), rows(y, -y)


def random_field():
    x, mask = random(5, 4), torch.ones(N, 5).bool()
    mask[::2, 3:] = False
    data = StackDataset(x=x, mask=mask, labels=torch.arange(5 * N).view(N, 5) % 3)
    space = lambda trial: Tags(trial.suggest_int("width", 4, 8))  # noqa: E731
    return space, OwnLoss(), Batches(lambda: DataLoader(data, 8))


def experts():
    return lambda trial: Experts(trial.suggest_int("n", 2, 5)), Classification(4), rows(random(4))


def remembering():
    return lambda trial: Remembering(trial.suggest_float("leak", 0.5, 1)), Classification(4), rows(random(4))


def observed():
    def space(trial):
        width = trial.suggest_int("width", 4, 8)
        return nn.Sequential(Observed(width), nn.Linear(width, 4))

    return space, Classification(4), rows(random(4))


def complex_weights():
    x = random(8)
    return (
        lambda trial: nn.Sequential(Complex(trial.suggest_int("modes", 2, 5)), nn.Linear(8, 8)),
        Regression(),
        rows(x, x),
    )


def sparse_buffer():
    x = random(4, 3)
    return lambda trial: Sparse(trial.suggest_int("hops", 1, 3)), Regression(), rows(x, x[..., :2])


def weights_computed_by_a_hook():
    def space(trial):
        width = trial.suggest_int("width", 4, 8)
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(4, width)), nn.ReLU(), nn.Linear(width, 4))

    return space, Classification(4), rows(random(4))


def returning(wrap):
    return lambda trial: Returning(trial.suggest_int("width", 4, 8), wrap)


def dict_batches_with_none():
    x = random(4)

    def make(numbers):
        return {"x": x[numbers], "mask": None, "labels": LABELS[numbers]}

    return returning(lambda y, z: Output(y)), Classification(4), loader(make)


def losses():
    data = TensorDataset(random(4))
    return returning(lambda y, z: Output(y, z)), OwnLoss(), Batches(lambda: DataLoader(data, 8))


CASES = {
    packed: (True, False),
    packed_inputs: (True, False),
    ode: (True, False),
    random_field: (True, False),
    experts: (True, False),
    remembering: (False, True),
    observed: (True, False),
    complex_weights: (False, True),
    sparse_buffer: (False, False),
    weights_computed_by_a_hook: (False, True),
    dict_batches_with_none: (False, True),
    losses: (False, True),
}
"""Whether a network has no fingerprint, for it looks at values, and whether it can be exported."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.filterwarnings("ignore")  # of torch, about these models
def test_from_search_to_report(tmp_path, case):
    looks, exported = CASES[case]
    # Observers go on observing while a network is tested, so that it changes.
    found = from_search_to_report(tmp_path, *case(), case.__name__, within=0.2 if case is observed else 1e-4)
    assert (found.looks is not None) == looks, found.looks
    assert (found.refusal is None) == exported, found.refusal

import numpy as np
import pytest
import torch

from optnas.data import TensorData

N = 60
X = torch.arange(N).float().unsqueeze(1)


def parts(data, k, **options):
    """The rows of training and validation in each fold."""
    folds = [data.fold(i, k, **options) for i in range(k)]
    return [tuple(set(split[0][:, 0].int().tolist()) for split in (fold.train, fold.val)) for fold in folds]


def held_back(data):
    return set(data.test[0][:, 0].int().tolist())


def test_every_row_but_those_of_the_test_is_validated_on_once():
    data = TensorData((X, X), val=0.3, test=0.2)
    found = parts(data, 5)
    assert set.union(*(val for _, val in found)) == set(range(N)) - held_back(data)
    assert sum(len(val) for _, val in found) == N - len(held_back(data))
    for train, val in found:
        assert not train & val
        assert train | val == set(range(N)) - held_back(data)
    assert parts(data, 5) == found
    assert parts(data, 5, repeat=1) != found
    assert {held_back(data.fold(i, 5)) == held_back(data) for i in range(5)} == {True}


def test_folds_of_labels_are_stratified():
    y = torch.tensor([0] * 45 + [1] * 15)
    data = TensorData((X, y), test=0.2)
    for i in range(4):
        assert data.fold(i, 4).val[1].float().mean() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("labels", [True, False])
def test_groups_stay_together(labels):
    groups = np.arange(N) // 4
    y = torch.arange(N) % 2 if labels else X
    data = TensorData((X, y), groups=groups, val=0.2, test=0.2)
    splits = [{groups[int(row)] for row in split[0][:, 0]} for split in (data.train, data.val, data.test)]
    assert sum(map(len, splits)) == len(set.union(*splits))
    for train, val in parts(data, 3):
        assert not {groups[row] for row in train} & {groups[row] for row in val}


def test_groups_go_on_in_given_validation_data():
    groups = [0] * 30 + [1] * 30
    data = TensorData((X[:50], X[:50]), val=(X[50:], X[50:]), test=(X[:1], X[:1]), groups=groups)
    assert {frozenset(val) for _, val in parts(data, 2)} == {frozenset(range(30)), frozenset(range(30, 60))}


def test_what_comes_later_is_held_out():
    data = TensorData((X, X), val=0.2, test=0.2, ordered=True)
    assert data.val[0][:, 0].tolist() == list(range(36, 48))
    assert data.test[0][:, 0].tolist() == list(range(48, 60))
    for train, val in parts(data, 3):
        assert max(train) < min(val) <= max(val) < 48


def test_tuples_and_dicts_are_divided_alike():
    data = TensorData(({"a": X, "b": (X, X)}, X), val=0.25, test=0.25)
    fold = data.fold(1, 3)
    inputs, targets = fold.val
    assert torch.equal(inputs["a"], targets)
    assert torch.equal(inputs["b"][1], targets)


def test_folds_that_cannot_be():
    data = TensorData((X, X))
    with pytest.raises(ValueError, match=r"fold\(5, 5\): there are folds 0 to 4"):
        data.fold(5, 5)
    with pytest.raises(ValueError, match="groups has 3 entries for 60 rows"):
        TensorData((X, X), groups=[1, 2, 3])

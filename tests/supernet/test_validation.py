"""Scores of sub-networks with shared weights."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from optuna.trial import TrialState
from torch import nn
from torchmetrics.functional.classification import multiclass_accuracy

from optnas import Chain, Choice, Objective, Supernet, Validation, best, create_study, optimize, record
from optnas.data import TensorData
from optnas.errors import UntestableError
from optnas.estimation.run import Run
from optnas.search.best import train
from optnas.seeds import derive_seed, seeded
from optnas.tasks import Classification
from optnas.training import Training
from optnas.trial import replay


def layer(trial, act=nn.ReLU):
    width = trial.suggest_categorical("width", [3, 6])
    return nn.Sequential(nn.LazyLinear(width), nn.LazyBatchNorm1d(), act(), nn.Dropout(0.3))


def classes(trial):
    return nn.LazyLinear(2)


def same(trial):
    """Two answers, one network."""
    trial.suggest_categorical("mood", ["good", "bad"])
    return nn.Identity()


op = Choice("op", {"one": layer, "other": layer, "tanh": partial(layer, act=nn.Tanh)})
space = Chain(a=op, b=same, head=classes)


def points(rows=100):
    x = torch.randn(rows, 2, generator=torch.Generator().manual_seed(0)) + torch.tensor([3.0, -1.0])
    return TensorData((x, (x[:, 0] > 3).long()), batch_size=16)


@pytest.fixture
def supernet():
    torch.manual_seed(0)
    supernet = Supernet(space, (3, 2), draws=5)
    supernet(torch.randn(4, 2))  # as if it had been trained
    return supernet


@pytest.fixture
def validation(supernet, tmp_path):
    training = Training(
        Classification(2, lr=0.05), points(), monitor="val_acc", mode="max", max_epochs=2, folder=tmp_path
    )
    return Validation(supernet, training, n_calibration=3)


def test_statistics_are_those_of_a_new_network_that_runs_over_the_same_batches(supernet, validation):
    params = {"a.op": "one", "a.op.one.width": 6, "b.mood": "good"}
    scored = supernet.subnet(replay(params))
    metrics = validation(scored, Run.of(replay(params)))

    fresh = supernet.subnet(replay(params)).eval()
    norm = next(m for m in fresh.modules() if isinstance(m, nn.BatchNorm1d))
    norm.momentum = None
    norm.train()
    data = points()
    with seeded(derive_seed("validate")), torch.no_grad():
        batches = [x for x, _ in data.train_dataloader()]
    assert len(batches) > 3
    with torch.no_grad():
        for x in batches[:3]:
            fresh(x)
    found = dict(scored.named_buffers())
    assert found.keys() == dict(fresh.named_buffers()).keys() != set()
    for name, buffer in fresh.named_buffers():
        assert torch.equal(found[name], buffer), name
    x, y = data.val
    by_hand = multiclass_accuracy(fresh.eval()(x), y, 2, average="micro")
    assert metrics["val_acc"] == pytest.approx(float(by_hand))
    assert next(m for m in scored.modules() if isinstance(m, nn.BatchNorm1d)).momentum == 0.1


def test_a_score_depends_on_nothing_that_was_scored_before(supernet, validation):
    before = {name: weight.clone() for name, weight in supernet.state_dict().items()}

    def score(op):
        params = {"a.op": op, f"a.op.{op}.width": 3, "b.mood": "good"}
        torch.manual_seed(len(op))
        return validation(supernet.subnet(replay(params)), Run.of(replay(params)))

    first = score("one")
    assert score("tanh") != first
    assert score("one") == first
    assert all(torch.equal(weight, before[name]) for name, weight in supernet.state_dict().items())


def search(objective, n_trials, enqueue=()):
    study = create_study(objective, study_name="s", seed=0)
    for params in enqueue:
        study.enqueue_trial(params)
    optimize(study, objective, n_trials=n_trials, show_progress=False)
    return study


def test_equal_networks_are_twins_only_where_their_weights_are_equal(supernet, validation):
    objective = Objective(supernet.subnet, validation)
    answers = [(op, mood) for op in ("one", "other") for mood in ("good", "bad")]
    params = [{"a.op": op, f"a.op.{op}.width": 6, "b.mood": mood} for op, mood in answers]
    study = search(objective, 2, params)
    done = study.get_trials(states=(TrialState.COMPLETE,))
    assert len({record.FINGERPRINT.of(trial) for trial in done}) == 1  # one graph
    assert len({objective.identity(p) for p in params}) == 4
    values = {(t.params["a.op"], t.params["b.mood"]): t.value for t in done}
    alone = {
        op: validation(supernet.subnet(replay(p)), Run.of(replay(p)))["val_acc"]
        for (op, _), p in zip(answers, params, strict=True)
    }
    assert all(value == alone[op] for (op, _), value in values.items())
    known = [(t.params["a.op"], record.TWIN_OF.of(t), record.AUDIT_OF.of(t)) for t in done]
    # "bad" has the weights of "good": scored all the same as an audit; "other" has its own, and is no twin.
    assert known[0] == ("one", None, None)
    assert known[1] == ("one", None, 0)
    assert known[2] == ("other", None, None)


def test_settings_change_with_the_weights(supernet, validation):
    before = validation.settings
    assert validation.settings == before
    with torch.no_grad():
        next(supernet.parameters()).add_(1)
    assert validation.settings["weights"] != before["weights"]


def test_the_winner_is_trained_anew_from_scratch(supernet, validation):
    objective = Objective(supernet.subnet, validation)
    study = search(objective, 4)
    winner = best(study, objective, finalists=2, n_seeds=1)
    [run] = winner.retrain(1)
    alone = Objective(space, validation.training)
    assert run == train(alone, winner.params, winner.seed_of(0), origin=record.origin(study))
    assert {"val_acc", "test_acc"} <= run.keys()
    with pytest.raises(UntestableError, match=r"scored with shared weights.*retrain"):
        winner.test()
    longer = winner.retrain(1, max_epochs=3)
    assert longer != [run]


def test_a_supernet_that_nobody_trained_is_refused(supernet, validation):
    params = {"a.op": "one", "a.op.one.width": 6, "b.mood": "good"}
    validation.supernet = supernet.untrained(replay({}))
    assert supernet.passes == 1
    with pytest.raises(ValueError, match=r"is untrained.*Objective\(supernet.untrained"):
        validation(validation.supernet.subnet(replay(params)), Run.of(replay(params)))


def test_statistics_need_a_batch(supernet, validation):
    with pytest.raises(ValueError, match="n_calibration=0: a sub-network has no statistics"):
        Validation(supernet, validation.training, n_calibration=0)

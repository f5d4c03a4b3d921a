"""Sub-networks that are trained on from shared weights, and estimators that would not say so."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from optnas import Chain, Choice, FineTuning, Objective, Supernet, best, create_study, optimize, record
from optnas.analysis.leaderboard import leaderboard
from optnas.data import TensorData
from optnas.errors import SearchFailedError, SpaceError
from optnas.estimation.estimator import Estimator
from optnas.search.best import train
from optnas.tasks import Classification
from optnas.training import Training
from optnas.trial import replay


def layer(trial):
    return nn.Sequential(nn.LazyLinear(6), nn.ReLU())


def classes(trial):
    return nn.LazyLinear(2)


space = Chain(a=Choice("op", {"one": layer, "other": layer}), head=classes)


def training(folder, max_epochs=1, **options):
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    data = TensorData((x, (x[:, 0] > 0).long()), batch_size=16)
    return Training(
        Classification(2, lr=0.05), data, monitor="val_acc", mode="max", max_epochs=max_epochs, folder=folder,
        **options,
    )  # fmt: skip


@pytest.fixture
def supernet():
    torch.manual_seed(0)
    supernet = Supernet(space, (3, 2), draws=5)
    supernet(torch.randn(4, 2))  # as if it had been trained
    return supernet


def search(objective, n_trials):
    study = create_study(objective, study_name="s", seed=0, pruner=None)
    for op in ("one", "other"):
        study.enqueue_trial({"a.op": op})
    optimize(study, objective, n_trials=n_trials, show_progress=False)
    return study


def test_a_trial_says_that_it_began_with_shared_weights(supernet, tmp_path):
    objective = Objective(
        supernet.subnet, FineTuning(supernet, training(tmp_path), anew=training(tmp_path, max_epochs=3))
    )
    study = search(objective, 2)
    assert [record.WEIGHTS.of(t) for t in study.trials] == [{"from": "shared"}] * 2
    assert {row.weights for row in leaderboard(study)} == {"shared"}
    # One graph with two sets of weights: no twins.
    assert len({record.FINGERPRINT.of(t) for t in study.trials}) == 1
    assert [record.TWIN_OF.of(t) for t in study.trials] == [None, None]
    assert [record.EPOCHS.of(t) for t in study.trials] == [1, 1]


def test_it_trains_the_shared_weights_on(supernet, tmp_path):
    shared = {name: weight.clone() for name, weight in supernet.state_dict().items()}
    still = training(tmp_path / "still")
    still.task = Classification(2, lr=0.0)
    study = search(Objective(supernet.subnet, FineTuning(supernet, still)), 1)
    [trial] = study.trials[:1]
    found = still.trained(supernet.subnet(replay(trial.params)), study, trial)
    expected = supernet.subnet(replay(trial.params))
    assert all(torch.equal(found.state_dict()[n], weight) for n, weight in expected.state_dict().items())

    study = search(Objective(supernet.subnet, FineTuning(supernet, training(tmp_path / "moved"))), 1)
    moved = training(tmp_path / "moved").trained(
        supernet.subnet(replay(trial.params)), study, study.trials[0]
    )
    assert any(not torch.equal(moved.state_dict()[n], w) for n, w in expected.state_dict().items())
    assert all(torch.equal(weight, shared[name]) for name, weight in supernet.state_dict().items())


def test_the_winner_is_trained_anew_from_scratch(supernet, tmp_path):
    anew = training(tmp_path, max_epochs=3)
    objective = Objective(supernet.subnet, FineTuning(supernet, training(tmp_path), anew=anew))
    study = search(objective, 2)
    winner = best(study, objective, n_seeds=1)
    [run] = record.retrained(study, winner.trial.number, None)
    alone = Objective(space, anew)
    assert run == train(alone, winner.params, winner.seed_of(0), origin=record.origin(study))
    longer = Objective(space, anew.with_max_epochs(4))
    assert winner.retrain(1, max_epochs=4) == [
        train(longer, winner.params, winner.seed_of(0), origin=record.origin(study))
    ]


def test_a_training_that_would_not_say_so_is_refused(supernet, tmp_path):
    objective = Objective(supernet.subnet, training(tmp_path))
    with pytest.raises(SearchFailedError, match=r"begin with the weights of a supernet.*FineTuning"):
        search(objective, 1)
    with pytest.raises(SpaceError, match=r"begin with the weights of a supernet"):
        train(objective, {"a.op": "one"}, seed=0)
    # Without a rehearsal, and in a part of a network of the user's own.
    wrapped = Objective(lambda trial: nn.Sequential(supernet.subnet(trial)), training(tmp_path))
    study = create_study(wrapped, seed=0)
    with pytest.raises(SpaceError, match=r"Training would score them as if"):
        study.optimize(wrapped, n_trials=1)


def test_a_function_that_would_not_say_so_is_refused_and_an_estimator_that_knows_is_not(supernet):
    def score(model, trial):
        return {"score": 1.0}

    class Knows(Estimator):
        scores_given_weights = True

        def __call__(self, model, run):
            return {"score": 1.0}

    options = {"values": {"score": "maximize"}, "example": (3, 2)}
    told = Objective(supernet.subnet, score, **options)
    with pytest.raises(SpaceError, match=r"score would score them as if"):
        create_study(told, seed=0).optimize(told, n_trials=1)
    knowing = Objective(supernet.subnet, Knows(), **options)
    study = create_study(knowing, seed=0)
    study.optimize(knowing, n_trials=1)
    assert record.WEIGHTS.of(study.trials[0]) == {"from": "shared"}


@pytest.mark.parametrize("options", [{"inherit": "exact"}, {"pretrained": nn.Linear(2, 2)}])
def test_one_beginning_excludes_the_other(supernet, tmp_path, options):
    with pytest.raises(ValueError, match="leave them out"):
        FineTuning(supernet, training(tmp_path, **options))


def test_an_untrained_supernet_is_refused(supernet, tmp_path):
    untrained = supernet.untrained(replay({}))
    tuning = FineTuning(untrained, training(tmp_path))
    objective = Objective(untrained.subnet, tuning)
    study = create_study(objective, seed=0)
    with pytest.raises(ValueError, match="is untrained"):
        study.optimize(objective, n_trials=1)

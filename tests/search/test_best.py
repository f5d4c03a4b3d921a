import shutil
import statistics

import pytest
import torch
from optuna.pruners import NopPruner
from optuna.trial import TrialState
from torch import nn

from optnas import record
from optnas.analysis.leaderboard import leaderboard
from optnas.data import TensorData
from optnas.errors import ParamsMismatchError, UntestableError
from optnas.estimation.folders import study_folder
from optnas.objective import Objective
from optnas.search.best import Best, Mean, best, train
from optnas.search.luck import leaders
from optnas.search.optimize import optimize
from optnas.search.study import create_study
from optnas.tasks import Classification
from optnas.training import Training


def mlp(trial):
    width = trial.suggest_int("width", 4, 32)
    return nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3))


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(300, 6, generator=generator)
    return TensorData((x, (x[:, 0] + x[:, 1] * 2).long()), batch_size=50)


@pytest.fixture(scope="module")
def searched(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    training = Training(
        Classification(3, lr=(1e-3, 1e-1)), data, monitor="val_acc", mode="max", max_epochs=3,
        folder=folder / "runs", keep=2,
    )  # fmt: skip
    objective = Objective(mlp, training)
    url, pruner = f"sqlite:///{folder}/s.db", NopPruner()
    study = create_study(objective, study_name="s", storage=url, pruner=pruner, seed=1)
    optimize(study, objective, n_trials=4)
    return study, objective


def accuracy(model, split):
    x, y = split
    with torch.no_grad():
        return (model(x).argmax(1) == y).float().mean().item()


def test_the_model_has_the_score_that_it_won_with(searched, data):
    study, objective = searched
    winner = best(study, objective)
    assert winner.value == max(t.value for t in study.get_trials(states=(TrialState.COMPLETE,)))
    assert accuracy(winner.model(), data.val) == pytest.approx(winner.value)


def test_test_metrics_are_of_the_test_split(searched, data):
    winner = best(*searched)
    assert winner.test()["test_acc"] == pytest.approx(accuracy(winner.model(), data.test))


def test_retraining_is_kept_and_seeded(searched):
    study, objective = searched
    winner = best(study, objective)
    two = winner.retrain(2)
    assert {"val_acc", "test_acc"} <= two[0].keys()
    again = best(study, objective).retrain(3)
    assert again[:2] == two
    assert train(objective, winner.params, winner.seed_of(2)) == pytest.approx(again[2])
    assert winner.retrain(1, max_epochs=1) != two[:1]


def test_among_finalists_the_best_mean_wins(searched):
    study, objective = searched
    found = [Best(study, objective, study.trials[row.trial]) for row in leaderboard(study, 3)]
    means = {b.trial.number: statistics.fmean(run["val_acc"] for run in b.retrain(2)) for b in found}
    assert means[best(study, objective, finalists=3, n_seeds=2).trial.number] == max(means.values())
    # Whoever is last by the search wins if luck is taken from the others.
    last = found[-1]
    kept = last.retrain(2)
    record.write_retrained(study, last.trial.number, None, [{"val_acc": 1.0, "test_acc": 0.0}] * 2)
    assert best(study, objective, finalists=3, n_seeds=2).trial.number == last.trial.number
    assert best(study, objective).trial.number == found[0].trial.number
    record.write_retrained(study, last.trial.number, None, kept)


def test_the_winner_is_one_whose_weights_are_kept(searched, monkeypatch):
    study, objective = searched
    ranked = leaders(study, objective)
    has_weights = [objective.estimator.has_trained(study, leader.trial) for leader in ranked]
    assert has_weights == [True, True, False, False]
    monkeypatch.setitem(best.__globals__, "leaders", lambda study, objective: ranked[::-1])
    winner = best(study, objective)
    assert winner.trial.number == ranked[1].trial.number
    winner.model()


def test_a_final_needs_finalists(searched):
    with pytest.raises(ValueError, match="finalists=0"):
        best(*searched, finalists=0)


def test_weights_elsewhere_are_explained(searched, tmp_path):
    study, objective = searched
    folder = study_folder(study)
    shutil.move(folder, tmp_path / "away")
    try:
        with pytest.raises(FileNotFoundError, match="Run this there"):
            best(study, objective).model()
    finally:
        shutil.move(tmp_path / "away", folder)


def test_the_best_of_a_repeat_is_what_was_trained(searched):
    study, objective = searched
    winner = best(study, objective)
    study.enqueue_trial(winner.params)
    study.optimize(objective, n_trials=1)
    assert record.TWIN_OF.of(study.trials[-1]) == winner.trial.number
    assert best(study, objective).trial.number == winner.trial.number


def test_an_empty_study_says_what_to_do(searched):
    _, objective = searched
    with pytest.raises(ValueError, match=r"no COMPLETE trial yet.*optimize"):
        best(create_study(objective), objective)


def test_a_study_without_a_value_says_what_became_of_its_trials():
    objective = Objective(
        mlp, lambda model, trial: {"a": float("nan")}, values={"a": "maximize"}, example=(2, 6)
    )
    study = create_study(objective)
    optimize(study, objective, n_trials=2)
    with pytest.raises(ValueError, match=r"no COMPLETE trial yet\. Trial 1: diverged: a is nan"):
        best(study, objective)


def test_the_best_by_another_value_is_not_given(searched):
    study, objective = searched
    loss = Objective(objective.space, objective.estimator, values={"val_loss": "minimize"})
    with pytest.raises(ParamsMismatchError, match=r"maximize val_acc, .* minimize val_loss"):
        best(study, loss)


def test_weights_of_a_network_that_the_space_does_not_build_are_refused(searched):
    study, objective = searched
    wider = Objective(lambda trial: nn.Sequential(mlp(trial), nn.Linear(3, 3)), objective.estimator)
    winner = best(study, objective)
    with pytest.raises(ParamsMismatchError, match=f"network of trial {winner.trial.number} again"):
        Best(study, wider, winner.trial).model()


@pytest.mark.parametrize(
    ("use", "error", "missing"),
    [
        (Best.model, NotImplementedError, "keeps no weights"),
        (Best.test, UntestableError, "has no test"),
        (lambda winner: winner.retrain(1, max_epochs=2), NotImplementedError, "has no epochs"),
    ],
)
def test_what_a_plain_function_as_estimator_cannot_do_is_said(use, error, missing):
    objective = Objective(mlp, lambda model, trial: {"a": 1.0}, values={"a": "maximize"}, example=(2, 6))
    study = create_study(objective)
    optimize(study, objective, n_trials=1)
    with pytest.raises(error, match=rf"estimator \(<lambda>\) {missing}"):
        use(best(study, objective))


def test_mean_is_the_statistics_of_the_sample():
    values = [0.5, 0.7, 0.9]
    mean = Mean.of(values)
    assert mean.mean == pytest.approx(statistics.fmean(values))
    assert str(mean) == "0.7000 ± 0.2000"
    assert str(Mean.of([0.5])) == "0.5000"

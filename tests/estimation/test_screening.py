"""A cheap estimate of each network, and a whole one of few; in place, however often it is interrupted."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState
from torch import nn

from optnas import Fact, Objective, Screening, create_study, optimize, rank_correlation, record
from optnas.analysis.trust import recorded_estimates, screening
from optnas.data import TensorData
from optnas.estimation.estimator import Estimator
from optnas.estimation.run import Run
from optnas.record import Reason, Why
from optnas.strategy.screening import ScreeningPruner
from optnas.tasks import Classification
from optnas.training import Training
from optnas.trial import replay

SIZE = Fact("size", lambda model, example: float(model.out_features), better="higher", needs="batch")


def linear(trial: Any) -> nn.Module:
    return nn.Linear(3, trial.suggest_int("width", 1, 400))


def whole(model: nn.Module, trial: Any) -> dict[str, float]:
    return {"loss": abs(model.out_features - 150.0)}


def cheap(model: nn.Module, trial: Any) -> dict[str, float]:
    return {"loss": abs(model.out_features - 170.0) / 10}


def useless(model: nn.Module, trial: Any) -> dict[str, float]:
    return {"loss": float(torch.rand(()))}


def objective_of(screening: Screening, **more: Any) -> Objective:
    return Objective(linear, screening, values={"loss": "minimize"}, example=(2, 3), **more)


def at_random(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


def test_every_network_is_screened_and_few_are_estimated_in_full() -> None:
    objective = objective_of(Screening(whole, by=cheap))
    study = create_study(objective, seed=0)
    optimize(study, objective, n_trials=40)
    trials = study.trials
    assert len(trials) == record.n_counted(trials) == 40
    assert Counter(t.state for t in trials) == {TrialState.COMPLETE: 4, TrialState.PRUNED: 36}
    assert study.best_value < 12
    for trial in trials:
        about = record.SCREENED.of(trial)
        assert about["value"] == abs(trial.params["width"] - 170.0) / 10
        assert (about["name"], about["better"]) == ("loss", "lower")
        if trial.state == TrialState.COMPLETE:
            assert trial.value == abs(trial.params["width"] - 150.0)
        else:
            assert Reason.of(trial).kind is Why.PAUSED
            assert "after screening, with loss" in record.why(trial)
    more = [t.number for t in trials if t.system_attrs.get("optnas:held")]
    optimize(study, objective, n_trials=60)  # goes on with what promised most
    assert len(study.trials) == 60
    assert sum(t.state == TrialState.COMPLETE for t in study.trials) == 6
    assert len(more) == 10


def test_by_a_fact_that_the_objective_need_not_know() -> None:
    calls = []

    def count(model: nn.Module, example: Any) -> float:
        calls.append(model.out_features)
        return float(model.out_features)

    class Example(Estimator):
        has_example = True
        values = {"loss": "minimize"}  # noqa: RUF012  # read only

        def example(self, trial: Any) -> Any:
            return (2, 3)

        def __call__(self, model: nn.Module, run: Run, /) -> dict[str, float]:
            return {"loss": -float(model.out_features)}

    fact = Fact("size", count, better="higher", needs="batch")
    objective = Objective(linear, Screening(Example(), by=fact, share=0.25))
    study = create_study(objective, seed=0, sampler=at_random(0), pruner=ScreeningPruner(0.25))
    optimize(study, objective, n_trials=12)
    assert len(calls) == 12  # once each, however often a trial went on
    assert sum(t.state == TrialState.COMPLETE for t in study.trials) == 3
    assert study.best_value == -max(t.params["width"] for t in study.trials)
    known = objective_of(Screening(whole, by=SIZE), facts=[SIZE])
    other = create_study(known, study_name="known", seed=0)
    optimize(other, known, n_trials=3)
    assert all(record.SCREENED.of(t)["value"] == record.facts(t)["size"] for t in other.trials)
    assert all("size" in record.facts(t) for t in other.trials)
    unknown = objective_of(Screening(whole, by=SIZE))
    third = create_study(unknown, study_name="unknown", seed=0)
    with pytest.raises(ValueError, match=r"cannot measure 'size'.*facts=\[\.\.\.\]"):
        third.optimize(unknown, n_trials=1)


def test_another_space_builds_what_is_screened() -> None:
    class Narrow(Estimator):
        has_example = True
        seen: list[nn.Module] = []  # noqa: RUF012  # of all

        def example(self, trial: Any) -> Any:
            return (2, 5)

        def __call__(self, model: nn.Module, run: Run, /) -> dict[str, float]:
            self.seen.append(model)
            return {"loss": 1.0}

    def narrow(trial: Any) -> nn.Module:
        return nn.Sequential(nn.LazyLinear(trial.suggest_int("width", 1, 400) // 100 + 1))

    objective = objective_of(Screening(whole, by=Narrow(), space=narrow))
    study = create_study(objective, seed=0)
    optimize(study, objective, n_trials=4)
    widths = [(model[0].in_features, model[0].out_features) for model in Narrow.seen]
    assert widths == [(5, t.params["width"] // 100 + 1) for t in study.trials]


def test_a_cheap_score_that_says_nothing_ends_the_screening_and_the_study_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    objective = objective_of(Screening(whole, by=useless, share=0.5))
    study = create_study(objective, seed=0, sampler=at_random(1))
    with caplog.at_level(logging.WARNING):
        optimize(study, objective, n_trials=80)
    ended = record.UNSCREENED.of(study)
    assert ended is not None
    assert caplog.text.count("Screening ends, and trials are estimated in full from now on") == 1
    assert screening(study) == [ended]
    screened = [record.SCREENED.of(t) is not None for t in study.trials]
    first = screened.index(False)
    assert not any(screened[first:])
    assert {t.state for t in study.trials[first:]} == {TrialState.COMPLETE}


def test_what_a_good_cheap_score_is_worth_is_known_and_shown() -> None:
    objective = objective_of(Screening(whole, by=cheap, share=0.2))
    study = create_study(objective, seed=0, sampler=at_random(0))
    optimize(study, objective, n_trials=40)
    assert record.UNSCREENED.of(study) is None
    [words] = screening(study)
    assert words.startswith("40 networks were screened by loss, and 8 of them were estimated in full.")
    [found] = [one for one in recorded_estimates(study) if one.estimate.name == "screening by loss"]
    assert found.estimate.n == 8

    def score(trial: optuna.trial.FrozenTrial) -> float:
        return -record.SCREENED.of(trial)["value"]

    assert found.estimate.kendall.value == rank_correlation(study, score).estimate.kendall.value


def test_under_plain_optuna_most_are_pruned_and_under_another_pruner_none() -> None:
    objective = objective_of(Screening(whole, by=cheap, share=0.2))
    study = create_study(objective, seed=0, sampler=at_random(0))
    study.optimize(objective, n_trials=30)
    ends = Counter(t.state for t in study.trials)
    assert 1 <= ends[TrialState.COMPLETE] <= 6
    assert ends[TrialState.PRUNED] >= 24
    assert {Reason.of(t).kind for t in study.trials if t.state == TrialState.PRUNED} == {Why.PRUNED}
    other = create_study(objective, study_name="o", seed=0, pruner=optuna.pruners.MedianPruner())
    other.optimize(objective, n_trials=12)
    assert {t.state for t in other.trials} == {TrialState.COMPLETE}


def test_a_budget_in_trainings_has_the_cheap_epochs_in_it() -> None:
    class Cheap(Estimator):
        max_reports = 2

        def __call__(self, model: nn.Module, run: Run, /) -> dict[str, float]:
            run.report(1, {"loss": 5.0})  # no report of the trial
            assert not run.should_prune()
            return cheap(model, run)

    class Whole(Cheap):
        max_reports = 10

        def __call__(self, model: nn.Module, run: Run, /) -> dict[str, float]:
            for step in range(10):
                run.report(step, whole(model, run))
            return whole(model, run)

    objective = objective_of(Screening(Whole(), by=Cheap(), share=0.2))
    study = create_study(objective, seed=0, sampler=at_random(0))
    optimize(study, objective, n_trainings=4)
    assert 40 <= record.n_reported(study.trials) < 60
    n_complete = sum(t.state == TrialState.COMPLETE for t in study.trials)
    assert record.n_reported(study.trials) == 2 * len(study.trials) + 10 * n_complete
    assert n_complete == len(study.trials) // 5


def test_the_winner_is_trained_anew_by_the_whole_estimate_alone() -> None:
    screening = Screening(whole, by=cheap)
    assert screening(nn.Linear(3, 7), Run.of(replay({"width": 7}))) == {"loss": 143.0}
    assert screening.settings == screening.estimator.settings


def test_bad_arguments_say_what_to_give() -> None:
    with pytest.raises(ValueError, match="share=1"):
        Screening(whole, by=cheap, share=1)
    with pytest.raises(ValueError, match=r"better='higher'"):
        Screening(whole, by=Fact("size", lambda model, example: 1.0))
    with pytest.raises(ValueError, match="neither estimator says what its inputs look like"):
        Screening(whole, by=cheap, space=linear)
    several = Objective(
        linear, Screening(whole, by=cheap), values={"loss": "minimize", "flops": "minimize"}, example=(2, 3)
    )
    study = create_study(several, seed=0, pruner=optuna.pruners.NopPruner())
    with pytest.raises(ValueError, match="chooses by one value"):
        study.optimize(several, n_trials=1)
    other = objective_of(Screening(whole, by=lambda model, trial: {"acc": 1.0}))
    with pytest.raises(ValueError, match="goes by 'loss', which its cheap estimate"):
        create_study(other, study_name="other", seed=0).optimize(other, n_trials=1)


def test_what_diverges_in_the_cheap_estimate_ends_there() -> None:
    objective = objective_of(Screening(whole, by=lambda model, trial: {"loss": float("nan")}))
    study = create_study(objective, seed=0)
    optimize(study, objective, n_trials=1)
    assert Reason.of(study.trials[0]).kind is Why.DIVERGED


# ---- interruptions ----


def points() -> TensorData:
    x = torch.randn(120, 2, generator=torch.Generator().manual_seed(0))
    return TensorData((x, (x[:, 0] * x[:, 1] > 0).long()), batch_size=16)


class DyingClassification(Classification):
    """Kills its process before an epoch, where a file says so: one line `trial max_epochs epoch`."""

    def __init__(self, orders: Path) -> None:
        super().__init__(2, lr=(0.001, 0.1))
        self._orders = orders

    def __call__(self, model: nn.Module, trial: Any) -> Any:
        module = super().__call__(model, trial)

        def begin() -> None:
            now = f"{trial.number} {module.trainer.max_epochs} {module.current_epoch}"
            if self._orders.exists() and self._orders.read_text() == now:
                self._orders.unlink()
                os.kill(os.getpid(), signal.SIGKILL)

        module.on_train_epoch_start = begin
        return module

    def __reduce__(self) -> Any:
        return Classification, (2,)


def net(trial: Any) -> nn.Module:
    return nn.Sequential(nn.Linear(2, trial.suggest_int("width", 2, 60)), nn.Dropout(0.1), nn.LazyLinear(2))


def run_search(folder: Path) -> optuna.Study:
    folder.mkdir(exist_ok=True)
    task = DyingClassification(folder / "orders")
    options: dict[str, Any] = {"monitor": "val_loss", "mode": "min", "folder": folder / "runs"}
    training = Training(task, points(), max_epochs=3, keep=1, **options)
    objective = Objective(net, Screening(training, by=training.with_max_epochs(2), share=0.4))
    study = create_study(
        objective, study_name="s", storage=f"sqlite:///{folder}/s.db", sampler=at_random, seed=0
    )
    optimize(study, objective, n_trials=4)
    return study


def told(study: optuna.Study) -> list[Any]:
    return [
        (t.state, t.params, t.values, list(t.intermediate_values.items()), record.SCREENED.of(t)["value"])
        for t in study.trials
    ]


def test_a_search_that_is_killed_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        undisturbed = run_search(tmp_path / "undisturbed")
        chosen = next(t.number for t in undisturbed.trials if t.state == TrialState.COMPLETE)
        folder = tmp_path / "killed"
        folder.mkdir()
        code = "import torch; torch.set_num_threads(1); from tests.estimation.test_screening import *; "
        for orders in ("1 2 1", f"{chosen} 3 2"):  # in a cheap training, and in a whole one
            (folder / "orders").write_text(orders)
            ended = subprocess.run(
                [sys.executable, "-c", f"{code}run_search(Path({str(folder)!r}))"],
                cwd=Path(__file__).parents[2],
                capture_output=True,
                text=True,
            )
            assert ended.returncode == -signal.SIGKILL, ended.stderr
        study = run_search(folder)
    finally:
        torch.set_num_threads(threads)
    assert told(study) == told(undisturbed)
    n_attempts = [sum(len(record.attempts(t)) for t in s.trials) for s in (undisturbed, study)]
    assert n_attempts[1] == n_attempts[0] + 2
    runs = folder / "runs"
    assert not list(runs.rglob("epoch-*.ckpt"))
    assert not list(runs.rglob("training-*"))  # nothing of the cheap trainings stays
    assert len(list(runs.rglob("weights.pt"))) == 1


def test_workers_share_the_screening(tmp_path: Path) -> None:
    objective = objective_of(Screening(whole, by=cheap))
    study = create_study(objective, storage=f"sqlite:///{tmp_path}/s.db", seed=0)
    optimize(study, objective, n_trials=20, n_workers=2)
    assert len(study.trials) == record.n_counted(study.trials) == 20
    assert sum(t.state == TrialState.COMPLETE for t in study.trials) == 2
    assert all(record.SCREENED.of(t) is not None for t in study.trials)

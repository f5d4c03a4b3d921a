"""A population whose curves are known: the worst end, and children of the best go on from where those are."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState
from torch import nn

from optnas import record
from optnas.estimation.estimator import Estimator
from optnas.objective import Objective
from optnas.record import BORN, PARENT, Why
from optnas.search.optimize import optimize
from optnas.search.study import create_study
from optnas.strategy.population import FACTORS, PopulationPruner, age

STEPS, SIZE, EVERY = 6, 8, 2


def space(trial):
    return nn.Linear(1, trial.suggest_int("body.width", 1, 300))


class Rising(Estimator):
    """The wider, the higher; a child goes on after as many reports as its parent had."""

    values = {"score": "maximize"}  # noqa: RUF012  (as the property it stands for)
    resumes = True
    max_reports = STEPS
    stops_at: int | None = None

    def ask(self, model, trial):
        trial.suggest_float("lr", 0.01, 1, log=True)

    def __call__(self, model, run):
        rate = run.suggest_float("lr", 0.01, 1, log=True)
        stored = run.study.get_trials(deepcopy=False)[run.number]
        for step in range(age(stored), STEPS):
            if self.stops_at == (run.number, step):
                self.stops_at = None
                raise KeyboardInterrupt
            score = (model.out_features + rate) * (step + 1)
            run.report(score, step)
            if step + 1 < STEPS and run.should_prune():
                run.pause()
        return {"score": score}


def searched(n_trials=None, study=None, estimator=None, **options):
    objective = Objective(space, estimator or Rising(), example=(2, 1))
    population = PopulationPruner(**{"size": SIZE, "every": EVERY, **options})
    study = study or create_study(objective, sampler=population.sampler, pruner=population, seed=3)
    n_trials = population.trials(STEPS) if n_trials is None else n_trials
    optimize(study, objective, n_trials=n_trials, show_progress=False)
    return study


@pytest.fixture(scope="module")
def study():
    return searched()


def test_the_worst_end_and_as_many_children_begin(study):
    assert len(study.trials) == 12  # 8 founders, and 2 children at each of two pauses
    founders, children = study.trials[:8], study.trials[8:]
    assert all(PARENT.of(t) is None and BORN.of(t) is None for t in founders)
    assert [BORN.of(t) for t in children] == [2, 2, 4, 4]
    ended = [t for t in study.trials if t.state == TrialState.PRUNED]
    assert [len([t for t in ended if age(t) == a]) for a in (2, 4)] == [2, 2]
    # At each pause the lowest of those that are there end.
    for of_age in (2, 4):
        there = [t for t in study.trials if age(t) >= of_age > (BORN.of(t) or 0)]
        order = sorted(there, key=lambda t: t.intermediate_values[of_age - 1])
        assert {t.number for t in order[:2]} == {t.number for t in ended if age(t) == of_age}
    rest = [t for t in study.trials if t.state == TrialState.COMPLETE]
    assert len(rest) == 8
    assert all(age(t) == STEPS for t in rest)
    assert all(list(t.intermediate_values) == list(range(BORN.of(t) or 0, age(t))) for t in study.trials)
    assert {record.Reason.of(t).kind for t in ended} <= {Why.PAUSED, Why.PRUNED}


def test_parents_are_the_best_and_children_differ_from_them(study):
    for child in study.trials[8:]:
        parent = study.trials[PARENT.of(child)]
        born = BORN.of(child)
        there = [t for t in study.trials[: child.number] if age(t) >= born > (BORN.of(t) or 0)]
        best = sorted(there, key=lambda t: -t.intermediate_values[born - 1])[:2]
        assert parent.number in {t.number for t in best}
        rates = {t.params["lr"] * factor for t in best for factor in FACTORS}
        assert any(
            child.params["lr"] == pytest.approx(rate) or child.params["lr"] in (0.01, 1) for rate in rates
        )


def test_without_mixing_a_child_has_its_parents_network():
    study = searched(mix=0.0)
    # A child that would repeat its parent is told apart by its learning rate.
    same = [
        t.params["body.width"] == study.trials[PARENT.of(t)].params["body.width"] for t in study.trials[8:]
    ]
    assert all(same)


def test_the_budget_is_in_reports_as_in_trials(study):
    assert record.n_reported(study.trials) == SIZE * STEPS  # nobody is trained beside the population


def test_a_search_that_is_interrupted_ends_as_if_it_had_not_been(study):
    estimator = Rising()
    first = max(study.trials[:8], key=lambda t: t.params["body.width"]).number
    for at in ((2, 1), (8, 3), (9, 2), (first, 4)):
        estimator.stops_at = at
        cut = None
        try:
            cut = searched_anew(estimator)
        except KeyboardInterrupt:
            cut = searched_anew.study
        assert estimator.stops_at is None, "it was not interrupted"
        searched(study=cut, estimator=estimator)
        for one, other in zip(study.trials, cut.trials, strict=True):
            assert one.params == other.params
            assert one.intermediate_values == other.intermediate_values
            assert (PARENT.of(one), BORN.of(one), one.state) == (
                PARENT.of(other),
                BORN.of(other),
                other.state,
            )


def searched_anew(estimator):
    objective = Objective(space, estimator, example=(2, 1))
    population = PopulationPruner(size=SIZE, every=EVERY)
    searched_anew.study = create_study(objective, sampler=population.sampler, pruner=population, seed=3)
    return searched(study=searched_anew.study, estimator=estimator)


def test_a_budget_that_ends_early_lets_those_that_are_there_finish():
    study = searched(n_trials=9)
    assert [t.state for t in study.trials].count(TrialState.COMPLETE) == 8
    assert len(study.trials) == 9


def test_under_plain_optuna_it_only_stops():
    population = PopulationPruner(size=4, every=1)
    study = optuna.create_study(sampler=population.sampler(0), pruner=population, direction="maximize")

    def objective(trial):
        trial.report(trial.suggest_float("x", 0, 1), 0)
        if trial.should_prune():
            raise optuna.TrialPruned
        return 1.0

    study.optimize(objective, n_trials=5)
    assert [t.state for t in study.trials] == [TrialState.PRUNED] * 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 3}, "size=3 and share=0.25"),
        ({"share": 0.6}, "share=0.6"),
        ({"every": 0}, "every=0"),
        ({"mix": 1.5}, "mix=1.5"),
    ],
)
def test_arguments_out_of_range_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        PopulationPruner(**options)


def test_the_number_of_trials_of_a_population():
    assert PopulationPruner(12, every=5).trials(20) == 12 + 3 * 3
    assert PopulationPruner(4, every=5).trials(5) == 4
    assert PopulationPruner(8, every=4, share=0.5).trials(10) == 8 + 4 * 2

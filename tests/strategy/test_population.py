"""A population whose curves are known: the worst end, and children of the best go on from where those are."""

from __future__ import annotations

import os
import signal
import time

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial
from torch import nn

from optnas import record
from optnas.estimation.estimator import Estimator
from optnas.objective import Objective
from optnas.record import BORN, PARENT, Why
from optnas.search.optimize import optimize
from optnas.search.study import create_study
from optnas.storage.base import HELD
from optnas.strategy.population import FACTORS, PopulationPruner, age

STEPS, SIZE, EVERY = 6, 8, 2


def space(trial):
    return nn.Linear(1, trial.suggest_int("body.width", 1, 300))


class Rising(Estimator):
    """The wider, the higher; a child goes on after as many reports as its parent had."""

    values = {"score": "maximize"}  # noqa: RUF012  (as the property it stands for)
    resumes = True
    max_reports = STEPS
    stops_at: tuple[int, int] | None = None

    def reach(self, number, step, born):
        if self.stops_at == (number, step):
            self.stops_at = None
            raise KeyboardInterrupt

    def ask(self, model, trial):
        trial.suggest_float("lr", 0.01, 1, log=True)

    def __call__(self, model, run):
        rate = run.suggest_float("lr", 0.01, 1, log=True)
        stored = run.study.get_trials(deepcopy=False)[run.number]
        for step in range(age(stored), STEPS):
            self.reach(run.number, step, BORN.of(stored) or 0)
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


class Dying(Rising):
    """Takes its time, and kills its process, once at each of some points: a trial, a step of its own."""

    def __init__(self, folder, points):
        self.killed, self.points = folder, points

    def reach(self, number, step, born):
        time.sleep(0.05)
        done = self.killed / f"{number}-{step - born}"
        if (number, step - born) in self.points and not done.exists():
            done.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def test_workers_that_run_side_by_side_and_die_make_as_many_children_as_are_due(tmp_path):
    first_child = (SIZE, 0)
    objective = Objective(space, Dying(tmp_path, [first_child]), example=(2, 1))
    population = PopulationPruner(size=SIZE, every=EVERY)
    study = create_study(
        objective, study_name="s", storage=f"sqlite:///{tmp_path}/s.db", sampler=population.sampler,
        pruner=population, seed=3,
    )  # fmt: skip
    optimize(study, objective, n_trials=population.trials(STEPS), n_workers=3)
    trials = study.trials
    assert [BORN.of(t) for t in trials[:8]] == [None] * 8
    assert sorted(BORN.of(t) for t in trials[8:]) == [2, 2, 4, 4]
    killed = [t.number for t in trials for a in record.attempts(t) if a.get("how") == "killed"]
    assert killed == [SIZE]
    assert [t.state for t in trials].count(TrialState.COMPLETE) == SIZE
    assert all(list(t.intermediate_values) == list(range(BORN.of(t) or 0, age(t))) for t in trials)
    for of_age in (2, 4):
        ended = [t for t in trials if t.state == TrialState.PRUNED and age(t) == of_age]
        parents = {PARENT.of(t) for t in trials if BORN.of(t) == of_age}
        assert len(ended) == 2
        came = [t for t in trials if age(t) >= of_age > (BORN.of(t) or 0)]
        last = {t.number: t.intermediate_values[of_age - 1] for t in came}
        assert min(last[number] for number in parents) > max(last[t.number] for t in ended)


def stood(*trials):
    """A study in which these trials are: `(reports, how, attributes)`, in the order of their numbers."""
    population = PopulationPruner(size=4, every=2)
    study = optuna.create_study(direction="maximize", sampler=population.sampler(0), pruner=population)
    for n_reports, how, attributes in trials:
        waits = how in ("held", "waits")
        born = attributes.get(BORN.name, 0)
        study.add_trial(
            create_trial(
                state=TrialState.WAITING if waits else TrialState[how],
                value=1.0 if how == "COMPLETE" else None,
                params={} if how == "RUNNING" and not n_reports and not born else {"x": 0.5},
                distributions={} if how == "RUNNING" and not n_reports and not born else {"x": FLOAT},
                intermediate_values={born + i: float(attributes.get("value", 0)) for i in range(n_reports)},
                system_attrs={HELD: how == "held", **{k: v for k, v in attributes.items() if k != "value"}},
            )
        )
    return study, population


FLOAT = FloatDistribution(0, 1)


def paused(value):
    return 2, "held", {"value": value}


def test_a_place_is_taken_by_whoever_has_begun_and_not_chosen_yet():
    three = [paused(1), paused(2), paused(3)]
    assert stood(*three)[1].begins(stood(*three)[0])  # a founder
    study, population = stood(*three, (0, "RUNNING", {}))
    assert not population.begins(study)
    assert population.promote(study, last=False) is None
    # Of four one child is due, which one that has begun will be.
    study, population = stood(*three, paused(4))
    assert population.begins(study)
    study, population = stood(*three, paused(4), (0, "RUNNING", {}))
    assert not population.begins(study)
    assert population.promote(study, last=False) is None
    assert [t.number for t in population.parents(study, study.trials[4])] == [3]
    study, population = stood(*three, paused(4), (0, "RUNNING", {}), (0, "RUNNING", {}))
    assert population.parents(study, study.trials[5]) == []


def test_a_parent_waits_until_its_child_has_a_state_of_its_own():
    born = {BORN.name: 2, PARENT.name: 3}
    three = [paused(1), paused(2), paused(3)]
    for state in ("RUNNING", "waits"):
        study, population = stood(*three, paused(4), (0, state, born))
        found = population.promote(study, last=False)
        assert (found is None) if state == "waits" else (found.number == 2)
    study, population = stood(*three, paused(4), (1, "RUNNING", born))
    assert population.promote(study, last=False).number == 3


def test_the_best_wait_for_those_on_their_way_whose_places_their_children_may_take():
    study, population = stood(paused(1), paused(2), paused(4), (1, "RUNNING", {}))
    assert population.promote(study, last=False).number == 1
    study, population = stood(paused(1), paused(2), paused(4), (3, "RUNNING", {}))
    assert population.promote(study, last=False) is None  # but a child is due
    assert population.begins(study)


def test_another_population_begins_when_all_of_one_has_ended():
    four = [(4, "COMPLETE", {})] * 4
    study, population = stood(*four[:3], (3, "RUNNING", {}))
    assert not population.begins(study)
    study, population = stood(*four)
    assert population.begins(study)
    study, population = stood(*four, (1, "RUNNING", {}))
    assert population.begins(study)  # which lacks three founders


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

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from optnas import record
from optnas.storage.base import HELD
from optnas.storage.open import claim
from optnas.strategy.halving import HalvingPruner


class Simulation:
    """Curves (losses), of which one is trained a report at a time; as `optimize` does it, in little."""

    def __init__(self, curves, pruner):
        self.curves, self.n_reports = iter(curves), 0
        self.study = optuna.create_study(pruner=pruner)
        self.rest = {}

    def new(self):
        trial = optuna.Trial(self.study, claim(self.study, None, record.COUNTS.name).trial_id)
        self.rest[trial.number] = list(next(self.curves))
        return self._train(trial)

    def go_on(self, *, last=False):
        """Whether any paused trial went on."""
        chosen = self.study.pruner.promote(self.study, last=last)
        if chosen is None:
            return None
        taken = claim(self.study, None, record.COUNTS.name, wanted=chosen._trial_id)
        record.LET_GO_ON.write(self.study, chosen, len(chosen.intermediate_values))
        self._train(optuna.Trial(self.study, taken.trial_id))
        return chosen.number

    def _train(self, trial):
        rest, step = self.rest[trial.number], len(self.study.trials[trial.number].intermediate_values)
        while rest:
            trial.report(rest.pop(0), step)
            step, self.n_reports = step + 1, self.n_reports + 1
            if rest and trial.should_prune():
                storage = trial.study._storage
                storage.set_trial_system_attr(trial._trial_id, HELD, True)
                storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
                return trial.number
        reports = self.study.trials[trial.number].intermediate_values.values()
        self.study.tell(trial, min(reports))
        return trial.number

    def lengths(self):
        return [len(trial.intermediate_values) for trial in self.study.trials]


def falling(losses, n=8):
    """Curves that keep their order."""
    return [[loss + 1 / (step + 1) for step in range(n)] for loss in losses]


def test_the_best_go_on_and_others_wait_for_their_turn():
    simulation = Simulation(falling([0, 50, 51, 52, 5, 60, 61, 62]), HalvingPruner(eta=4, n_startup_trials=4))
    for _ in range(7):
        simulation.new()
    # The first four make a second report, which shows that the first says something.
    assert simulation.lengths() == [8, 2, 2, 2, 1, 1, 1]
    assert simulation.go_on() is None  # one of seven may, and has
    simulation.new()
    assert simulation.go_on() == 4  # of eight, two may
    assert simulation.lengths() == [8, 2, 2, 2, 2, 1, 1, 1]
    assert simulation.go_on() is None
    states = [trial.state for trial in simulation.study.trials]
    assert states == [TrialState.COMPLETE] + [TrialState.WAITING] * 7


def test_whoever_is_ahead_goes_on_at_once():
    simulation = Simulation(falling(range(30, 0, -1)), HalvingPruner(eta=4, n_startup_trials=4))
    for _ in range(12):
        number = simulation.new()
    assert len(simulation.study.trials[number].intermediate_values) == 8


def test_reports_that_say_nothing_are_no_rung():
    """The first report is before training: its order is that of nothing."""
    rng = np.random.default_rng(0)
    curves = [[rng.uniform(), *curve] for curve in falling(rng.permutation(60))]
    simulation = Simulation(curves, HalvingPruner(n_startup_trials=8))
    for _ in range(40):
        simulation.new()
    assert min(simulation.lengths()) == 2


def test_when_no_new_trial_may_begin_the_share_of_finish_is_completed_the_best_first():
    losses = list(np.random.default_rng(1).permutation(60))
    simulation = Simulation(falling(losses), HalvingPruner())
    for _ in range(60):
        simulation.new()
    went = []
    while (number := simulation.go_on(last=True)) is not None:
        went.append(number)
    complete = [t.number for t in simulation.study.trials if t.state == TrialState.COMPLETE]
    assert 15 <= len(complete) <= 25
    assert {losses[i] for i in complete} >= set(range(15))
    went = [losses[number] for number in went]
    assert np.mean(went[:10]) < np.mean(went[-10:])
    assert simulation.n_reports < 0.6 * 60 * 8


def test_a_trial_that_was_let_go_on_is_not_stopped_where_it_was():
    simulation = Simulation(falling(range(1, 40)), HalvingPruner(eta=4, n_startup_trials=4))
    for _ in range(20):
        simulation.new()
    while (number := simulation.go_on(last=True)) is not None:
        trial = simulation.study.trials[number]
        assert len(trial.intermediate_values) > record.LET_GO_ON.of(trial)


def test_what_diverged_or_failed_counts_as_worst_or_not_at_all():
    simulation = Simulation(falling(range(40, 0, -1)), HalvingPruner(eta=4, n_startup_trials=4))
    simulation.study.add_trial(
        optuna.trial.create_trial(state=TrialState.FAIL, intermediate_values={0: 0.0, 1: 0.0})
    )
    simulation.study.add_trial(
        optuna.trial.create_trial(state=TrialState.PRUNED, value=0.0, intermediate_values={0: 0.0, 1: np.nan})
    )
    for _ in range(12):
        number = simulation.new()
    assert len(simulation.study.trials[number].intermediate_values) == 8


def test_it_is_an_ordinary_pruner_under_plain_optuna():
    curves = iter(falling(range(1, 60)))

    def objective(trial):
        for step, loss in enumerate(next(curves)):
            trial.report(loss, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return loss

    study = optuna.create_study(pruner=HalvingPruner())
    study.optimize(objective, n_trials=40)
    states = [trial.state for trial in study.trials]
    assert states.count(TrialState.PRUNED) == 39 - states[1:].count(TrialState.COMPLETE)
    assert states[0] == TrialState.COMPLETE


@pytest.mark.parametrize(
    "wrong",
    [
        {"eta": 1},
        {"spacing": 1.0},
        {"n_startup_trials": 3},
        {"finish": 0},
        {"finish": 1.5},
        {"most_paused": 0},
    ],
)
def test_arguments_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        HalvingPruner(**wrong)

import optuna
import pytest
from optuna.trial import TrialState

from optnas import record
from optnas.storage.base import HELD
from optnas.storage.open import claim
from optnas.strategy.halving import HalvingPruner
from optnas.strategy.screening import ScreeningPruner


class Simulation:
    """Screens numbers: cheap and whole losses by functions of x, as `optimize` does it, in little."""

    def __init__(self, pruner, whole=lambda x: x, cheap=lambda x: x, reports=1):
        sampler = optuna.samplers.RandomSampler(seed=0)
        self.study = optuna.create_study(sampler=sampler, pruner=pruner)
        self.whole, self.cheap, self.n_reports = whole, cheap, reports
        self.order = []  # numbers of the trials that went on

    def new(self):
        trial = optuna.Trial(self.study, claim(self.study, None, record.COUNTS.name).trial_id)
        about = {"name": "cheap", "value": self.cheap(trial.suggest_float("x", 0, 1)), "better": "lower"}
        record.SCREENED.write(trial, {**about, "reports": 1, "seconds": 0.0})
        self._go(trial)

    def go_on(self, *, last=False):
        chosen = self.study.pruner.promote(self.study, last=last)
        if chosen is None:
            return False
        assert claim(self.study, None, record.COUNTS.name, wanted=chosen._trial_id).trial_id is not None
        record.LET_GO_ON.write(self.study, chosen, len(chosen.intermediate_values))
        trial = optuna.Trial(self.study, chosen._trial_id)
        self._train(trial)
        return True

    def _go(self, trial):
        if trial.should_prune():
            self._pause(trial)
        else:
            self._train(trial)

    def _train(self, trial):
        self.order.append(trial.number)
        for step in range(len(self.study.trials[trial.number].intermediate_values), self.n_reports):
            trial.report(self.whole(trial.params["x"]) + 1 / (step + 1), step)
            if step + 1 < self.n_reports and trial.should_prune():
                self._pause(trial)
                return
        self.study.tell(trial, self.whole(trial.params["x"]))

    def _pause(self, trial):
        self.study._storage.set_trial_system_attr(trial._trial_id, HELD, True)
        self.study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def search(self, n):
        for _ in range(n):
            while self.go_on():
                pass
            self.new()
        while self.go_on(last=True):
            pass

    @property
    def best_of_all(self):
        return min(self.study.trials, key=lambda trial: self.whole(trial.params["x"])).number


def test_one_of_ten_goes_on_and_it_is_the_best_where_cheap_scores_are_right():
    simulation = Simulation(ScreeningPruner())
    simulation.search(40)
    complete = [t.number for t in simulation.study.trials if t.state == TrialState.COMPLETE]
    assert len(complete) == 4
    assert simulation.best_of_all in complete
    assert sum(t.state == TrialState.WAITING for t in simulation.study.trials) == 36


def test_nothing_goes_on_before_its_share_was_screened_but_at_the_end_one_does():
    simulation = Simulation(ScreeningPruner(share=0.25))
    for _ in range(3):
        simulation.new()
        assert not simulation.go_on()
    assert simulation.order == []
    assert simulation.go_on(last=True)
    assert not simulation.go_on(last=True)
    assert simulation.order == [simulation.best_of_all]


def test_whole_scores_correct_the_cheap_ones():
    """The cheap loss is smallest at 0, the whole one at 0.3."""
    simulation = Simulation(ScreeningPruner(share=0.15), whole=lambda x: abs(x - 0.3))
    simulation.search(80)
    tried = [simulation.study.trials[number].params["x"] for number in simulation.order]
    assert simulation.study.best_value < 0.03
    assert sum(abs(x - 0.3) < 0.1 for x in tried[6:]) >= 4


def test_whole_estimates_are_paused_as_the_other_pruner_says():
    simulation = Simulation(ScreeningPruner(0.5, pruner=HalvingPruner(n_startup_trials=4)), reports=8)
    simulation.search(40)
    lengths = {t.number: len(t.intermediate_values) for t in simulation.study.trials}
    assert sum(n > 0 for n in lengths.values()) == 20
    assert 1 <= sum(n == 8 for n in lengths.values()) < 12
    assert lengths[simulation.best_of_all] == 8
    paused = [t for t in simulation.study.trials if t.state == TrialState.WAITING]
    ranked = simulation.study.pruner.ranked(simulation.study, paused)
    assert sorted(t.number for t in ranked) == sorted(t.number for t in paused)
    begun = [bool(t.intermediate_values) for t in ranked]
    assert begun == sorted(begun, reverse=True)


def test_trials_without_a_cheap_score_are_left_to_the_other_pruner():
    study = optuna.create_study(pruner=ScreeningPruner())
    for value in range(5):
        trial = study.ask()
        trial.report(value, 0)
        assert not trial.should_prune()
        study.tell(trial, value)
    assert study.pruner.promote(study, last=True) is None


@pytest.mark.parametrize("wrong", [{"share": 0}, {"share": 1.5}, {"most_paused": 0}])
def test_what_is_out_of_range_is_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ScreeningPruner(**wrong)

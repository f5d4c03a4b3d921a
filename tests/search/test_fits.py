"""What a study and a space cannot agree on is one error before the search, and costs no trial."""

import logging
import re
from typing import Any

import optuna
import pytest
import torch
from optuna.distributions import IntDistribution
from optuna.trial import TrialState
from torch import nn

from optnas.errors import ChoicesError, ParamsMismatchError, SearchFailedError
from optnas.objective import Objective
from optnas.search.fits import check_fits, never_asked
from optnas.search.optimize import optimize
from optnas.search.study import create_study


class Score:
    """The width of a network; asks a schedule of one of `schedules`."""

    def __init__(self, *schedules: Any) -> None:
        self.values = {"score": "maximize"}
        self.schedules = schedules

    def example(self, trial: Any) -> tuple[int, int]:
        return (2, 4)

    def ask(self, model: nn.Module, trial: Any) -> None:
        if self.schedules:
            trial.suggest_categorical("schedule", self.schedules)

    def __call__(self, model: nn.Module, trial: Any) -> dict[str, float]:
        self.ask(model, trial)
        return {"score": float(sum(p.numel() for p in model.parameters()))}


def of_acts(*acts: Any) -> Any:
    def space(trial: Any) -> nn.Module:
        width = trial.suggest_int("width", 1, 64)
        act = trial.suggest_categorical("act", acts)
        return nn.Sequential(nn.Linear(4, width), getattr(nn, str(act), nn.Identity)())

    return space


def objective_of(space: Any, *schedules: Any) -> Objective:
    return Objective(space, Score(*schedules))


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Any) -> str | None:
    return None if request.param == "memory" else f"sqlite:///{tmp_path}/s.db"


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.trials]


@pytest.mark.parametrize(
    ("acts", "message"),
    [
        (
            ("ReLU", "Tanh", "SiLU"),
            r"one of \['ReLU', 'Tanh', 'SiLU'\], and in trial 0 as one of \['ReLU', 'Tanh'\]",
        ),
        (("Tanh", "ReLU"), r"one of \['Tanh', 'ReLU'\], and in trial 0 as one of \['ReLU', 'Tanh'\]"),
        (("ReLU",), r"one of \['ReLU'\], and in trial 0"),
    ],
)
def test_choices_that_changed_are_one_error_before_the_search(
    storage: str | None, acts: tuple[str, ...], message: str
) -> None:
    before = objective_of(of_acts("ReLU", "Tanh"))
    study = create_study(before, study_name="s", storage=storage, seed=0)
    optimize(study, before, n_trials=4)
    with pytest.raises(
        ChoicesError, match=rf"(?s)'s' does not fit.*'act' is asked as {message}.*another name"
    ):
        optimize(study, objective_of(of_acts(*acts)), n_trials=12)
    assert states(study) == ["COMPLETE"] * 4
    optimize(study, before, n_trials=5)  # the way out
    assert states(study) == ["COMPLETE"] * 5


def test_choices_that_became_others_that_python_calls_equal_are_seen() -> None:
    before = objective_of(of_acts(1, "Tanh"))
    study = create_study(before, seed=0)
    optimize(study, before, n_trials=2)
    with pytest.raises(
        ChoicesError, match=r"one of \[True, 'Tanh'\], and in trial 0 as one of \[1, 'Tanh'\]"
    ):
        optimize(study, objective_of(of_acts(True, "Tanh")), n_trials=4)


@pytest.mark.parametrize(("asks", "times"), [(False, 1), (True, 20)])
def test_a_space_that_asks_nothing_is_built_once_to_see_what_it_asks(asks: bool, times: int) -> None:
    built = []

    def space(trial: Any) -> nn.Module:
        built.append(trial.suggest_int("width", 1, 64) if asks else 3)
        return nn.Linear(4, built[-1])

    objective = objective_of(space)
    study = create_study(objective, seed=0)
    built.clear()
    check_fits(study, objective)
    assert len(built) == times


def test_a_range_may_change() -> None:
    def space(trial: Any, high: int = 8) -> nn.Module:
        return nn.Linear(4, trial.suggest_int("width", 1, high))

    study = create_study(objective_of(space), seed=0)
    optimize(study, objective_of(space), n_trials=2)
    optimize(study, objective_of(lambda trial: space(trial, 16)), n_trials=4)
    assert states(study) == ["COMPLETE"] * 4


def test_a_question_of_another_kind_is_named() -> None:
    study = create_study(objective_of(of_acts("ReLU")), seed=0)
    optimize(study, objective_of(of_acts("ReLU")), n_trials=1)

    def space(trial: Any) -> nn.Module:
        return nn.Linear(4, trial.suggest_int("width", 1, 64, log=True))

    with pytest.raises(
        ChoicesError, match=r"'width' is asked as an integer in 1\.\.64, logarithmic, and in trial 0"
    ):
        check_fits(study, objective_of(space))


def dependent(trial: Any) -> nn.Module:
    wide = trial.suggest_categorical("wide", [True, False])
    return nn.Linear(4, trial.suggest_categorical("units", [64, 128] if wide else [8, 16]))


def test_choices_that_depend_on_another_answer_are_one_error_before_the_first_trial(
    storage: str | None,
) -> None:
    study = create_study(objective_of(dependent), study_name="s", storage=storage, seed=0)
    with pytest.raises(
        ChoicesError, match=r"(?s)'units' is asked as one of \[.*'wide': .* as one of \[.*into the name"
    ):
        optimize(study, objective_of(dependent), n_trials=20)
    assert study.trials == []


class Seven(optuna.samplers.RandomSampler):
    """Answers every number with 7."""

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        asked = study, trial, param_name, param_distribution
        return 7 if isinstance(param_distribution, IntDistribution) else super().sample_independent(*asked)


def test_what_random_architectures_do_not_show_is_one_error_at_its_first_trial(storage: str | None) -> None:
    def rare(trial: Any) -> nn.Module:
        rare = trial.suggest_int("depth", 0, 10**6) == 7
        return nn.Linear(4, trial.suggest_categorical("units", [8, 16] if rare else [64, 128]))

    study = create_study(objective_of(rare), study_name="s", storage=storage, seed=0)
    optimize(study, objective_of(rare), n_trials=2)
    study.sampler = Seven()
    message = r"'units' is asked as one of \[8, 16\], and in trial 0 as one of \[64, 128\].*into the name"
    with pytest.raises(ChoicesError, match=message):
        optimize(study, objective_of(rare), n_trials=20)
    assert states(study) == ["COMPLETE", "COMPLETE", "FAIL"]


def test_choices_of_the_task_that_changed_are_one_error_at_the_first_trial(storage: str | None) -> None:
    before = objective_of(of_acts("ReLU", "Tanh"), "step", "cosine")
    study = create_study(before, study_name="s", storage=storage, seed=0)
    optimize(study, before, n_trials=2)
    now = objective_of(of_acts("ReLU", "Tanh"), "step", "constant")
    with pytest.raises(
        ChoicesError, match=r"'schedule' is asked as one of \['step', 'constant'\], and in trial \d"
    ):
        optimize(study, now, n_trials=12)
    assert states(study)[:2] == ["COMPLETE"] * 2
    assert states(study)[2:] in ([], ["FAIL"])


@pytest.mark.parametrize(
    ("choices", "pair"), [((0, False), "0 and False"), ((1, 1.0, True, "1"), "1 and 1.0")]
)
def test_choices_that_optuna_would_store_as_one_are_refused(choices: tuple[Any, ...], pair: str) -> None:
    study = create_study(objective_of(of_acts(*choices)), seed=0)
    with pytest.raises(ChoicesError, match=rf"'act' offers {pair}, which Python calls equal.*Offer strings"):
        optimize(study, objective_of(of_acts(*choices)), n_trials=3)
    assert study.trials == []
    now = objective_of(of_acts("ReLU"), *choices)  # of the task: found when it asks
    study = create_study(now, seed=0)
    with pytest.raises(ChoicesError, match=rf"'schedule' offers {pair}"):
        optimize(study, now, n_trials=3)


def test_a_name_that_nothing_asked_for_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    objective = objective_of(of_acts("ReLU", "Tanh"), "step", "cosine")
    study = create_study(objective, seed=0)
    study.enqueue_trial({"width": 3, "widht": 4, "schedule": "step"})
    study.enqueue_trial({"width": 5, "widht": 5, "heads": 2})
    study.enqueue_trial({"width": 7})
    with caplog.at_level(logging.WARNING):
        optimize(study, objective, n_trials=4)
    told = [r.getMessage() for r in caplog.records if "never asked for" in r.getMessage()]
    assert [message.split(": ")[1].split(".")[0] for message in told] == ["'widht'", "'heads'"]
    assert [never_asked(trial) for trial in study.trials] == [["widht"], ["heads", "widht"], [], []]


def test_an_enqueued_answer_that_the_space_does_not_take_can_be_given_up() -> None:
    objective = objective_of(of_acts("ReLU", "Tanh"), "step", "cosine")
    study = create_study(objective, seed=0)
    study.enqueue_trial({"width": 300})
    with pytest.raises(ParamsMismatchError, match=r"trial 0: .*'width' is 300.*it was enqueued with") as told:
        optimize(study, objective, n_trials=1)
    way_out = re.search(r"study.tell\(.*FAIL\)", str(told.value))
    assert way_out is not None
    eval(way_out[0])  # as a user would
    optimize(study, objective, n_trials=1)
    assert states(study) == ["FAIL", "COMPLETE"]


def test_a_space_all_of_which_fails_says_why() -> None:
    def fails(model: nn.Module, trial: Any) -> dict[str, float]:
        raise AttributeError("'tuple' object has no attribute 'ndim'")

    def space(trial: Any) -> nn.Module:
        return nn.Linear(4, trial.suggest_categorical("h", [8, 16, 32]))

    objective = Objective(space, fails, values={"score": "maximize"}, example=(2, 4))
    study = create_study(objective, seed=0)
    with pytest.raises(SearchFailedError, match=r"(?s)3 of them failed \(trial 0, 1, 2\).*'ndim'.*enqueue"):
        optimize(study, objective, n_trials=5)
    assert states(study) == ["FAIL"] * 3


def test_a_space_some_of_which_failed_is_said_to_have_failed_there(caplog: pytest.LogCaptureFixture) -> None:
    def space(trial: Any) -> nn.Module:
        h = trial.suggest_categorical("h", [8, 16, 32])
        return nn.Linear(5 if h == 16 else 4, h)

    study = create_study(objective_of(space), seed=0)
    with caplog.at_level(logging.WARNING):
        optimize(study, objective_of(space), n_trials=5)
    [end] = [r.getMessage() for r in caplog.records if "The search ends" in r.getMessage()]
    [failed] = [t for t in study.trials if t.state == TrialState.FAIL and t.params]
    assert failed.params == {"h": 16}
    assert len(study.trials) == 3
    assert f"1 of them failed (trial {failed.number})" in end
    assert "The search is complete" not in end


def test_a_small_space_that_needs_numbers_to_build_is_searched_once_and_no_more() -> None:
    def space(trial: Any) -> nn.Module:
        rates = [rate.item() for rate in torch.linspace(0, 0.3, trial.suggest_int("depth", 1, 3))]
        return nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.Dropout(rate)) for rate in rates))

    study = create_study(objective_of(space), seed=0)
    optimize(study, objective_of(space), n_trials=6)
    assert sorted(trial.params["depth"] for trial in study.trials) == [1, 2, 3]

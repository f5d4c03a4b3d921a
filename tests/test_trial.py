"""Trials that answer without a study, and the names under which they are asked."""

from typing import Any

import optuna
import pytest

from optnas.answers import contains, params_key
from optnas.errors import ParamsMismatchError
from optnas.trial import Draw, Trial, ask, replay, scope


def constant(value: Any) -> Draw:
    return Draw(lambda name, distribution: value)


def questions(trial: Trial) -> list[Any]:
    return [
        trial.suggest_categorical("op", ["conv", "skip"]),
        trial.suggest_int("width", 8, 64, step=8),
        trial.suggest_int("depth", 1, 16, log=True),
        trial.suggest_float("rate", 0.0, 0.5, step=0.1),
        trial.suggest_float("lr", 1e-4, 1e-1, log=True),
        trial.suggest_float("momentum", 0.0, 1.0),
    ]


ANSWERS = {"op": "skip", "width": 16, "depth": 3, "rate": 0.3, "lr": 1e-2, "momentum": 0.9}


def test_scopes_nest_and_name_a_path() -> None:
    trial = constant(2)
    block = scope(scope(trial, "body"), "block", 0)
    assert block.suggest_int("width", 1, 3) == 2
    assert block.suggest_float("rate", 0.0, 4.0) == 2.0
    assert scope(block).suggest_categorical("op", [1, 2]) == 2
    assert scope(trial, "a", "b").suggest_int("c", 1, 3) == scope(scope(trial, "a"), "b").suggest_int(
        "c", 1, 3
    )
    assert list(trial.params) == ["body.block.0.width", "body.block.0.rate", "body.block.0.op", "a.b.c"]


def test_a_scope_passes_every_part_of_a_question_on() -> None:
    inner, plain = replay({f"s.{k}": v for k, v in ANSWERS.items()}), replay(ANSWERS)
    assert questions(scope(inner, "s")) == questions(plain)
    assert inner.distributions == {f"s.{k}": v for k, v in plain.distributions.items()}


def test_every_trial_gets_the_same_questions_as_a_trial_of_optuna() -> None:
    study = optuna.create_study()
    study.enqueue_trial(ANSWERS)
    real, drawn = study.ask(), replay(ANSWERS)
    assert questions(real) == questions(drawn) == questions(study.trials[0]) == list(ANSWERS.values())
    assert real.distributions == drawn.distributions
    assert real.params == drawn.params == ANSWERS


def test_a_question_may_be_given_as_a_distribution() -> None:
    drawn = replay(ANSWERS)
    questions(drawn)
    again, real = replay(ANSWERS), optuna.create_study().ask()
    for name, distribution in drawn.distributions.items():
        assert ask(again, name, distribution) == ANSWERS[name]
        assert contains(distribution, ask(real, name, distribution))
    assert again.distributions == real.distributions == drawn.distributions


def test_a_name_asked_again_gets_its_first_answer() -> None:
    answers = iter([1, 2])
    trial = Draw(lambda name, distribution: next(answers))
    assert [trial.suggest_int("width", 1, 3) for _ in range(3)] == [1, 1, 1]


def test_a_name_asked_with_another_distribution_is_refused() -> None:
    trial = constant(1)
    trial.suggest_int("width", 1, 3)
    with pytest.raises(ValueError, match=r"'width' is asked twice.*high=3.*high=4.*scope\(trial"):
        trial.suggest_int("width", 1, 4)
    with pytest.raises(ValueError, match="'width' is asked twice"):
        trial.suggest_categorical("width", [1, 2, 3])


def test_an_answer_outside_the_question_is_refused() -> None:
    with pytest.raises(ParamsMismatchError, match=r"'width' is 5, but the space asks for Int.*high=3"):
        constant(5).suggest_int("width", 1, 3)


@pytest.mark.parametrize("choice", [(3, 3), [1], {"a": 1}, object, print])
def test_a_choice_that_no_study_can_store_is_refused(choice: Any) -> None:
    with pytest.raises(TypeError, match=r"'op' offers .*; a choice must be None, bool, int, float or str"):
        constant(choice).suggest_categorical("op", [choice])


def test_choices_that_python_calls_equal_stay_apart() -> None:
    for value in (True, 1, 1.0, "1", None):
        answer = constant(value).suggest_categorical("op", [None, "1", 1.0, 1, True])
        assert (type(answer), answer) == (type(value), value)


def test_a_replay_names_the_question_without_an_answer() -> None:
    with pytest.raises(ParamsMismatchError, match=r"asks for 'depth'.*\(op, width\)"):
        questions(replay({"op": "conv", "width": 8}))
    with pytest.raises(ParamsMismatchError, match=r"asks for 'op'.*\(none\)"):
        questions(replay({}))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"op": "pool"}, "'op' is 'pool'"),
        ({"width": 12}, "'width' is 12"),
        ({"width": 72}, "'width' is 72"),
        ({"depth": 0}, "'depth' is 0"),
        ({"rate": 0.25}, "'rate' is 0.25"),
        ({"lr": 1.0}, "'lr' is 1.0"),
    ],
)
def test_a_replay_names_the_answer_that_is_no_longer_possible(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsMismatchError, match=message):
        questions(replay({**ANSWERS, **changed}))


def test_a_replay_finds_what_a_frozen_trial_lets_pass() -> None:
    study = optuna.create_study()
    study.enqueue_trial({"width": 64})
    trial = study.ask()
    trial.suggest_int("width", 8, 64)
    stored = study.trials[0]
    with pytest.warns(UserWarning, match="out of the range"):
        assert stored.suggest_int("width", 8, 32) == 64
    with pytest.raises(ParamsMismatchError, match="'width' is 64"):
        replay(stored.params).suggest_int("width", 8, 32)


def test_answers_of_others_do_not_disturb_a_replay() -> None:
    trial = replay({"width": 8, "task_lr": 0.1})
    assert trial.suggest_int("width", 8, 16) == 8
    assert trial.params == {"width": 8}


def test_an_answer_is_kept_as_a_storage_would_give_it_back() -> None:
    trial = replay({"rate": 1, "depth": 2.0})
    assert (trial.suggest_float("rate", 0, 1), trial.suggest_int("depth", 1, 3)) == (1, 2)
    study = optuna.create_study()
    study.enqueue_trial({"rate": 1, "depth": 2.0})
    stored = study.ask()
    stored.suggest_float("rate", 0, 1)
    stored.suggest_int("depth", 1, 3)
    assert params_key(trial.params) == params_key(study.trials[0].params)

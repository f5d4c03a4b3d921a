"""Every way in which a trial may end, and what the loop makes of it."""

import errno
import subprocess
import sys
import textwrap

import optuna
import pytest
from optuna.trial import TrialState
from torch import nn

from optnas import record, twins
from optnas.errors import SearchFailedError
from optnas.estimation.estimator import Estimator
from optnas.objective import Objective
from optnas.record import Why, counts
from optnas.search import loop
from optnas.search.optimize import optimize
from optnas.search.recovery import MAX_KILLS
from optnas.search.study import create_study
from optnas.strategy.distinct import DistinctSampler


def linear(trial):
    return nn.Linear(4, trial.suggest_int("width", 1, 50))


class Score(Estimator):
    """The width, after `do(run)`; notes which trials it was told have ended."""

    values = {"score": "maximize"}  # noqa: RUF012  # read only

    def __init__(self, do=lambda run: None):
        self.do, self.told = do, []

    def __call__(self, model, run):
        self.do(run)
        return {"score": float(model.out_features)}

    def finish(self, study, trial):
        self.told.append((trial.number, trial.state))


def objective_of(do=lambda run: None, space=linear, **options):
    return Objective(space, Score(do), example=(2, 4), **options)


def states(study):
    return [trial.state for trial in study.trials]


def raise_(error):
    raise error


# ---- ends that are wanted ----


def test_stop_ends_the_search_after_the_trial_that_calls_it():
    objective = objective_of(lambda run: run.study.stop() if run.number == 1 else None)
    study = create_study(objective, seed=0)
    optimize(study, objective, n_trials=8)
    assert states(study) == [TrialState.COMPLETE] * 2
    optimize(study, objective, n_trials=4)  # and is no matter for the next call
    assert states(study) == [TrialState.COMPLETE] * 4
    with pytest.raises(RuntimeError, match="inside an objective"):
        study.stop()


def test_callbacks_are_called_as_optuna_calls_them_and_may_stop_the_search():
    seen = []
    objective = objective_of(lambda run: raise_(ValueError("no")) if run.number == 1 else None)
    study = create_study(objective, seed=0)

    def note(given, trial):
        assert given is study
        seen.append((trial.number, trial.state))

    most = optuna.study.MaxTrialsCallback(3, states=(TrialState.COMPLETE,))
    optimize(study, objective, n_trials=8, callbacks=[note, most])
    assert seen == list(enumerate(states(study)))
    assert states(study) == [TrialState.COMPLETE, TrialState.FAIL, *[TrialState.COMPLETE] * 2]


def test_an_estimator_is_told_of_each_trial_that_has_ended():
    def do(run):
        if run.number == 1:
            raise ValueError("no")
        if run.number == 2:
            raise optuna.TrialPruned

    objective = objective_of(do)
    study = create_study(objective, seed=0)
    optimize(study, objective, n_trials=3)
    assert objective.estimator.told == list(enumerate(states(study)))


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_the_users_sampler_is_theirs_again_however_the_search_ends(error):
    objective = objective_of(lambda run: raise_(error))
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = create_study(objective, sampler=sampler)
    with pytest.raises((SearchFailedError, KeyboardInterrupt)):
        optimize(study, objective, n_trials=9)
    assert study.sampler is sampler


# ---- pauses ----


@pytest.mark.parametrize("shared", [False, True])
def test_a_trial_that_pauses_goes_on_under_its_number_and_loses_nothing(tmp_path, shared):
    def do(run):
        steps = run.study.trials[run.number].intermediate_values
        run.report(0.5, len(steps))
        if len(steps) < 2 * MAX_KILLS:
            run.pause()

    objective = objective_of(do, reuse_twins=False)
    study = create_study(objective, storage=f"sqlite:///{tmp_path}/s.db" if shared else None, seed=0)
    optimize(study, objective, n_trials=2)
    assert states(study) == [TrialState.COMPLETE] * 2
    for trial in study.trials:
        assert list(trial.intermediate_values) == list(range(2 * MAX_KILLS + 1))
        assert {attempt.get("how") for attempt in record.ATTEMPTS.of(trial)[:-1]} == {"paused"}
        assert record.Reason.of(trial) is None
        assert counts(trial)


def test_a_trial_that_pauses_for_ever_ends_the_search_with_its_number(monkeypatch):
    monkeypatch.setattr(loop, "MAX_IDLE_TRIALS", 3)
    objective = objective_of(lambda run: run.pause())
    study = create_study(objective, seed=0)
    with pytest.raises(SearchFailedError, match="trial 0 paused 3 times without a report"):
        optimize(study, objective, n_trials=2)
    assert states(study) == [TrialState.WAITING]


# ---- what poisons a search ----


class Foreign(BaseException):
    """As some libraries raise it for their own purposes."""


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (SystemExit(1), SystemExit),
        (SystemExit(0), SearchFailedError),
        (SystemExit(), SearchFailedError),
        (Foreign("stop"), Foreign),
        (OSError(errno.ENOSPC, "No space left", "/mnt/cache"), OSError),
        (optuna.exceptions.StorageInternalError("another study's"), optuna.exceptions.StorageInternalError),
    ],
)
def test_what_ends_every_attempt_is_set_aside_with_the_reason(tmp_path, shared, error, raised):
    objective = objective_of(lambda run: raise_(error) if run.number == 1 else None)
    study = create_study(objective, storage=f"sqlite:///{tmp_path}/s.db" if shared else None, seed=0)
    for _ in range(MAX_KILLS - 1):
        with pytest.raises(raised):
            optimize(study, objective, n_trials=3)
        assert states(study) == [TrialState.COMPLETE, TrialState.WAITING]
    optimize(study, objective, n_trials=3)
    assert states(study) == [TrialState.COMPLETE, TrialState.FAIL, *[TrialState.COMPLETE] * 2]
    reason = record.Reason.of(study.trials[1])
    assert reason.kind is Why.GAVE_UP
    assert f"{MAX_KILLS} attempts" in reason.words
    assert f"{type(error).__name__} at test_loop.py" in reason.words
    assert [attempt["how"] for attempt in record.ATTEMPTS.of(study.trials[1])] == ["raised"] * MAX_KILLS


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error", "/data/0001.jpg"),
        OSError("Caught OSError in DataLoader worker process 0.\n[Errno 116] Stale file handle"),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
        RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"),
    ],
)
def test_a_fault_of_the_machine_costs_an_attempt_and_one_that_stays_the_trial(
    tmp_path, monkeypatch, shared, error
):
    monkeypatch.setattr(loop, "AFTER_A_FAULT", 0.01)
    n_met = 0

    def do(run):
        nonlocal n_met
        n_met += run.number == 1
        if run.number == 2 or (run.number == 1 and n_met < MAX_KILLS):
            raise error

    objective = objective_of(do)
    study = create_study(objective, storage=f"sqlite:///{tmp_path}/s.db" if shared else None, seed=0)
    optimize(study, objective, n_trials=3)
    complete, fail = TrialState.COMPLETE, TrialState.FAIL
    assert states(study) == [complete, complete, fail, complete]
    assert [a.get("how") for a in record.ATTEMPTS.of(study.trials[1])] == ["raised", "raised", None]
    assert record.Reason.of(study.trials[1]) is None
    assert record.Reason.of(study.trials[2]).kind is Why.GAVE_UP


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), SystemExit(143)])
def test_interruptions_from_outside_cost_a_trial_nothing(interruption):
    n_interrupted = 0

    def do(run):
        nonlocal n_interrupted
        n_interrupted += 1
        if n_interrupted <= 2 * MAX_KILLS:
            raise interruption

    objective = objective_of(do)
    study = create_study(objective, seed=0)
    for _ in range(2 * MAX_KILLS):
        with pytest.raises(type(interruption)):
            optimize(study, objective, n_trials=1)
    optimize(study, objective, n_trials=1)
    assert states(study) == [TrialState.COMPLETE]


@pytest.mark.parametrize("shared", [False, True])
def test_an_error_of_another_study_is_an_error_in_code(tmp_path, shared):
    def do(run):
        if run.number == 1:
            inner = optuna.create_study()
            trial = inner.ask()
            inner.tell(trial, 1.0)
            trial.set_user_attr("late", 1)  # raises UpdateFinishedTrialError

    objective = objective_of(do)
    study = create_study(objective, storage=f"sqlite:///{tmp_path}/s.db" if shared else None, seed=0)
    optimize(study, objective, n_trials=3)
    assert states(study) == [TrialState.COMPLETE, TrialState.FAIL, *[TrialState.COMPLETE] * 2]
    assert "UpdateFinishedTrialError at test_loop.py" in record.why(study.trials[1])


FORKING = """
    import os, sys, time
    import optnas
    from torch import nn

    def linear(trial):
        return nn.Linear(4, trial.suggest_int("width", 1, 10_000))

    def estimate(model, trial):
        if trial.number == 1 and (pid := os.fork()):
            os.waitpid(pid, 0)
        if trial.number == 2:
            if not (pid := os.fork()):
                sys.exit(7)  # as a child should
            print("left with", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=sys.stderr)
        print(os.getpid(), trial.number, flush=True)
        return {"score": 1.0}

    objective = optnas.Objective(linear, estimate, values={"score": "maximize"}, example=(2, 4))
    study = optnas.create_study(objective, study_name="s", storage=sys.argv[1], seed=0)
    optnas.optimize(study, objective, n_trials=3)
    print(os.getpid(), "end", flush=True)
"""


def test_a_forked_child_that_comes_back_does_not_go_on_with_the_search(tmp_path):
    script = tmp_path / "search.py"
    script.write_text(textwrap.dedent(FORKING))
    command = [sys.executable, str(script), f"sqlite:///{tmp_path}/s.db"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    parent = lines[-1][0]
    assert [word for pid, word in lines if pid == parent] == ["0", "1", "2", "end"]
    assert [word for pid, word in lines if pid != parent] == ["1"]
    assert "forked in trial 1 came back" in done.stderr
    assert "forked in trial 2" not in done.stderr
    assert "left with 7" in done.stderr
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/s.db")
    assert states(study) == [TrialState.COMPLETE] * 3


# ---- nothing left to try ----


def test_networks_that_the_space_refuses_do_not_count_and_end_the_search(monkeypatch, caplog):
    monkeypatch.setattr(loop, "MAX_IDLE_TRIALS", 5)
    refused = []

    def small(trial):
        model = linear(trial)
        if model.out_features > 3:
            refused.append(model)
            raise optuna.TrialPruned("too large for the device")
        return model

    objective = objective_of(space=small, reuse_twins=False)
    study = create_study(objective, sampler=optuna.samplers.RandomSampler(seed=0))
    for width in (1, 40, 2, 41):
        study.enqueue_trial({"width": width})
    optimize(study, objective, n_trials=50)
    assert [t.params["width"] for t in study.trials if counts(t)] == [1, 2]
    assert {record.why(t) for t in study.trials if not counts(t)} == {"too large for the device"}
    assert "refused or infeasible (the last: too large for the device)" in caplog.text


def test_a_space_of_which_all_has_failed_shows_the_error():
    objective = objective_of(
        lambda run: raise_(ValueError("expects a tuple")),
        space=lambda trial: nn.Linear(4, trial.suggest_int("width", 1, 3)),
    )
    study = create_study(objective, seed=0)
    with pytest.raises(SearchFailedError, match=r"3 of them failed.*: expects a tuple\. Fix it"):
        optimize(study, objective, n_trials=20)


# ---- twins ----


def with_dummies(trial):
    trial.suggest_int("dummy", 1, 6)
    return nn.Linear(4, trial.suggest_int("width", 1, 3))


def test_equal_networks_are_proposed_until_they_were_seen_to_train_alike():
    objective = objective_of(space=with_dummies)
    study = create_study(objective, sampler=optuna.samplers.RandomSampler(seed=0))
    optimize(study, objective, n_trials=3)
    trials = [t for t in study.trials if t.state == TrialState.COMPLETE]
    assert sum(record.AUDIT_OF.of(t) is not None for t in trials) == twins.AUDITS
    assert sorted(t.params["width"] for t in trials if counts(t)) == [1, 2, 3]
    known = {(t.params["width"], t.params["dummy"]) for t in trials}
    assert len(known) == len(trials)  # no answers twice, at any time


def test_equal_networks_that_train_to_other_values_go_on_being_proposed():
    class Reading(Score):
        def __call__(self, model, run):
            return {"score": float(run.params["dummy"])}

    objective = Objective(with_dummies, Reading(), example=(2, 4))
    study = create_study(objective, sampler=optuna.samplers.RandomSampler(seed=0))
    optimize(study, objective, n_trials=16)
    assert record.TWINS_DIFFER.of(study) is not None
    assert sum(map(counts, study.trials)) == 16
    answers = [tuple(sorted(t.params.items())) for t in study.trials]
    assert len(set(answers)) == len(answers)
    assert not any(record.TWIN_OF.of(t) is not None for t in study.trials)


def test_a_sampler_that_is_distinct_already_is_left_alone():
    objective = objective_of()
    sampler = DistinctSampler(optuna.samplers.RandomSampler(seed=0), linear, seed=0)
    study = create_study(objective, sampler=sampler)
    seen = []
    optimize(study, objective, n_trials=2, callbacks=[lambda study, trial: seen.append(study.sampler)])
    assert seen == [sampler, sampler]

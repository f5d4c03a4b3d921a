import importlib
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState
from torch import nn

from optnas import record
from optnas.errors import ParamsMismatchError, SearchFailedError
from optnas.objective import Objective
from optnas.record import End, counts
from optnas.search.fits import check_fits
from optnas.search.optimize import optimize
from optnas.search.study import create_study


def linear(trial):
    return nn.Linear(4, trial.suggest_int("width", 1, 50))


class Score:
    """The width, after one report; can be told to fail, prune or be infeasible for some widths."""

    values = {"score": "maximize"}  # noqa: RUF012  # read only

    def __init__(self, prune=(), infeasible=(), fail=()):
        self.prune, self.infeasible, self.fail = prune, infeasible, fail
        self.calls = 0

    def example(self, trial):
        return (2, 4)

    def __call__(self, model, trial):
        self.calls += 1
        width = model.out_features
        trial.report(float(width), 0)
        if width in self.fail:
            raise RuntimeError(f"no width {width}")
        if width in self.infeasible:
            trial.refuse("width", width - 19, "too wide")
        if width in self.prune:
            raise optuna.TrialPruned
        return {"score": float(width)}


class Named(Score):
    """Asks for a parameter of its own."""

    def __call__(self, model, trial):
        return {"score": trial.suggest_float("lr", 0, 1)}


def states(study):
    return [t.state for t in study.trials]


def test_n_trials_is_a_budget_of_the_whole_study():
    score = Score()
    objective = Objective(linear, score)
    study = create_study(objective, seed=0)
    optimize(study, objective, n_trials=5)
    optimize(study, objective, n_trials=8)
    optimize(study, objective, n_trials=8)  # done already: does nothing
    assert sum(map(counts, study.trials)) == 8
    assert score.calls == 8


def test_twins_infeasible_and_failed_trials_do_not_count_but_pruned_ones_do():
    score = Score(prune=range(1, 20), infeasible=range(20, 30), fail=range(30, 35))
    objective = Objective(linear, score)
    study = create_study(objective, seed=0, sampler=lambda seed: optuna.samplers.RandomSampler(seed=seed))
    optimize(study, objective, n_trials=20)
    counted = [t for t in study.trials if counts(t)]
    assert len(counted) == 20
    assert {t.params["width"] for t in counted} <= {*range(1, 20), *range(35, 51)}
    assert {t.state for t in counted} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert all(
        record.end(t) in (End.FAILED, End.TWIN, End.INFEASIBLE) or record.AUDIT_OF.of(t) is not None
        for t in study.trials
        if not counts(t)
    )


def test_an_enqueued_baseline_is_trial_0():
    objective = Objective(linear, Score())
    study = create_study(objective)
    study.enqueue_trial({"width": 17})
    optimize(study, objective, n_trials=2)
    assert study.trials[0].params == {"width": 17}


def test_what_is_enqueued_beyond_the_budget_goes_on_waiting(tmp_path):
    objective = Objective(linear, Score())
    study = create_study(objective, storage=f"sqlite:///{tmp_path}/s.db", study_name="s")
    for width in range(1, 6):
        study.enqueue_trial({"width": width})
    optimize(study, objective, n_trials=3)
    assert states(study) == [TrialState.COMPLETE] * 3 + [TrialState.WAITING] * 2


def test_timeout_ends_the_search(monkeypatch):
    now = 1000.0
    clock = SimpleNamespace(time=lambda: now, monotonic=lambda: now, sleep=time.sleep)
    for module in ("optimize", "loop"):
        monkeypatch.setattr(importlib.import_module(f"optnas.search.{module}"), "time", clock)

    class Slow(Score):
        def __call__(self, model, trial):
            nonlocal now
            now += 3
            return super().__call__(model, trial)

    objective = Objective(linear, Slow(), reuse_twins=False)
    study = create_study(objective)
    optimize(study, objective, timeout=10)
    assert states(study) == [TrialState.COMPLETE] * 4  # begun after 0, 3, 6 and 9 seconds


def test_the_same_failure_five_times_from_the_start_stops_with_the_reason():
    objective = Objective(linear, Score(fail=range(1, 51)))
    study = create_study(objective)
    with pytest.raises(
        SearchFailedError, match=r"5 of its last 5.*test_optimize.py:\d+ in __call__: no width"
    ):
        optimize(study, objective, n_trials=20)
    assert states(study) == [TrialState.FAIL] * 5
    assert "no width" in record.why(study.trials[0])


def test_eight_failures_of_the_last_ten_stop_the_search():
    failing = Score()
    objective = Objective(linear, failing, reuse_twins=False)
    study = create_study(objective)
    optimize(study, objective, n_trials=3)
    failing.fail = [w for w in range(1, 51) if w != 13]
    for width in [1, 2, 13, 3, 4, 13, 5, 6, 7, 8, 9, 10]:
        study.enqueue_trial({"width": width})
    with pytest.raises(SearchFailedError, match="8 of its last 10"):
        optimize(study, objective, n_trials=100)
    assert len(study.get_trials(states=(TrialState.FAIL,))) == 8


def test_a_few_failures_do_not_stop_the_search():
    objective = Objective(linear, Score(fail=range(1, 10)))
    study = create_study(objective, sampler=lambda seed: optuna.samplers.RandomSampler(seed=seed), seed=1)
    for width in (20, 1, 2, 3):
        study.enqueue_trial({"width": width})
    optimize(study, objective, n_trials=15)
    assert sum(map(counts, study.trials)) == 15
    assert TrialState.FAIL in states(study)


class Asked(Score):
    """Says beforehand what it will ask: nothing."""

    def ask(self, model, trial):
        pass


@pytest.mark.parametrize("estimator", [Asked, Score])
def test_an_exhausted_space_ends_with_a_message(caplog, tmp_path, estimator):
    objective = Objective(lambda trial: nn.Linear(4, trial.suggest_int("width", 1, 3)), estimator())
    for _ in range(2):  # and again, from what the trials recorded
        study = create_study(objective, storage=f"sqlite:///{tmp_path}/s.db", study_name="s")
        optimize(study, objective, n_trials=10)
        assert "All 3 distinct architectures" in caplog.text
        caplog.clear()
        assert sorted(t.params["width"] for t in study.trials if counts(t)) == [1, 2, 3]


def test_what_an_estimator_asks_in_the_end_tells_trials_apart():
    objective = Objective(lambda trial: nn.Linear(4, trial.suggest_int("width", 1, 2)), Named())
    study = create_study(objective, seed=0)
    optimize(study, objective, n_trials=10)
    assert sum(map(counts, study.trials)) == len(study.trials) == 10


def test_a_study_that_no_longer_fits_names_parameter_and_way_out():
    objective = Objective(linear, Score())
    study = create_study(objective, study_name="widths")
    study.enqueue_trial({"width": 40})
    optimize(study, objective, n_trials=1)
    narrower = Objective(lambda trial: nn.Linear(4, trial.suggest_int("width", 1, 30)), Score())
    with pytest.raises(ParamsMismatchError, match=r"'widths'.*trial 0.*'width' is 40.*another name"):
        optimize(study, narrower, n_trials=2)
    assert len(study.trials) == 1


def test_a_study_whose_space_asked_for_more_is_not_gone_on_with():
    def two_layers(trial):
        return nn.Sequential(linear(trial), nn.LazyLinear(trial.suggest_int("second", 1, 5)))

    study = create_study(Objective(two_layers, Score()), study_name="layers", seed=0)
    study.enqueue_trial({"width": 3, "second": 4})
    optimize(study, Objective(two_layers, Named()), n_trials=1)
    with pytest.raises(
        ParamsMismatchError, match=r"'layers'.*trial 0.*no longer asks for 'second'.*another name"
    ):
        optimize(study, Objective(linear, Named()), n_trials=2)
    optimize(study, Objective(two_layers, Named()), n_trials=2)
    assert states(study) == [TrialState.COMPLETE] * 2


def test_an_enqueued_trial_that_does_not_fit_is_found_before_the_search():
    objective = Objective(linear, Score())
    study = create_study(objective)
    study.enqueue_trial({"width": 99})
    with pytest.raises(ParamsMismatchError, match="'width' is 99"):
        optimize(study, objective, n_trials=1)
    assert states(study) == [TrialState.WAITING]


def test_of_thousands_of_enqueued_trials_few_are_built_and_one_that_does_not_fit_is_found():
    built = []

    def two(trial):
        built.append(trial)
        first = trial.suggest_int("first", 1, 40)
        return nn.Linear(4, first if first % 2 else trial.suggest_int("second", 1, 40))

    objective = Objective(two, Score())
    study = create_study(objective)
    waiting = [{"first": i, "second": j, "unknown": 0} for i in range(1, 41) for j in range(1, 41)]
    study.add_trials(map(waits_for, waiting))
    check_fits(study, objective)
    assert len(built) <= 3 * (40 + 40 + 1)
    study.add_trials(map(waits_for, [{"first": 3}, {"first": 4, "second": 41}]))
    with pytest.raises(ParamsMismatchError, match="trial 1601: Parameter 'second' is 41"):
        check_fits(study, objective)


def waits_for(params):
    return optuna.trial.create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": params})


def test_a_search_says_that_it_waits_for_a_trial_that_its_user_asked_for(tmp_path, monkeypatch):
    module = importlib.import_module("optnas.search.loop")
    monkeypatch.setattr(module, "SILENCE", 0.1)
    objective = Objective(linear, Score())
    study = create_study(objective, storage=f"sqlite:///{tmp_path}/s.db", seed=0)
    study.ask()
    told = []

    class DoAsTold(logging.Handler):
        def emit(self, record):
            told.append(record.getMessage())
            study.tell(0, state=TrialState.FAIL)

    module.logger.addHandler(handler := DoAsTold())
    try:
        optimize(study, objective, n_trials=2)
    finally:
        module.logger.removeHandler(handler)
    [message] = told
    assert "waits for trial 0, which this process itself runs" in message
    assert "study.tell(0, state=optuna.trial.TrialState.FAIL)" in message
    assert states(study) == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]


SCRIPT = """
    import sys, time
    import optnas
    from torch import nn

    class Slow:
        values = {"score": "maximize"}
        def example(self, trial): return (2, 4)
        def __call__(self, model, trial):
            trial.report(0.5, 0)
            print("running", trial.number, flush=True)
            if trial.number == 1 and sys.argv[2] == "slow":
                time.sleep(3600)
            return {"score": float(model.out_features)}

    def linear(trial):
        return nn.Linear(4, trial.suggest_int("width", 1, 10_000))

    objective = optnas.Objective(linear, Slow())
    study = optnas.create_study(objective, study_name="s", storage=sys.argv[1], seed=0)
    optnas.optimize(study, objective, n_trials=3)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)])
def test_an_interrupted_trial_is_queued_again_and_finished_later(tmp_path, number, code):
    script = tmp_path / "search.py"
    script.write_text(textwrap.dedent(SCRIPT))
    url = f"sqlite:///{tmp_path}/s.db"
    command = [sys.executable, str(script), url]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "slow"], **pipes) as process:
        while "running 1" not in process.stdout.readline():
            assert process.poll() is None, process.stderr.read()
        os.kill(process.pid, number)
        _, stderr = process.communicate()
    assert process.returncode == code, stderr
    assert "Interrupted in trial 1, which is queued again" in stderr

    study = optuna.load_study(study_name="s", storage=url)
    assert states(study) == [TrialState.COMPLETE, TrialState.WAITING]
    width = study.trials[1].params["width"]

    subprocess.run([*command, "fast"], check=True, capture_output=True)
    study = optuna.load_study(study_name="s", storage=url)
    assert states(study) == [TrialState.COMPLETE] * 3
    assert study.trials[1].params["width"] == width
    first, second = record.ATTEMPTS.of(study.trials[1])
    assert first["pid"] != second["pid"]
    assert first["ended"] >= first["started"]


@pytest.mark.parametrize("way", ["os._exit", "sys.exit"])
def test_code_that_exits_with_0_in_the_process_of_the_search_is_no_success(tmp_path, way):
    script = f"""if True:
        import os, sys
        import optnas
        from torch import nn

        def estimate(model, trial):
            if trial.number == 1:
                {way}(0)
            return {{"score": 1.0}}

        def space(trial):
            return nn.Linear(2, trial.suggest_int("n", 1, 99))

        values = {{"score": "maximize"}}
        objective = optnas.Objective(space, estimate, values=values, example=(2, 2))
        study = optnas.create_study(objective, study_name="s", storage="sqlite:///x.db")
        optnas.optimize(study, objective, n_trials=3)
        """
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"ended the process with {way}(0), as if the search were done" in done.stderr


def test_a_negative_number_of_trials_is_no_budget():
    objective = Objective(linear, Score())
    study = create_study(objective)
    with pytest.raises(ValueError, match="n_trials=-1: give at least 0"):
        optimize(study, objective, -1)

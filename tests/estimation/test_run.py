import optuna
import pytest
from optuna.trial import FixedTrial, TrialState

from optnas import record
from optnas.errors import ParamsMismatchError, TrialPaused
from optnas.estimation.run import Run
from optnas.record import End, Reason, Why
from optnas.trial import replay


def test_it_is_optunas_trial_and_both_know_what_either_learns():
    study = optuna.create_study()
    trial = study.ask()
    run = Run.of(trial)
    assert isinstance(run, optuna.Trial)
    assert Run.of(run) is run
    x = run.suggest_float("x", 0, 1)
    trial.set_user_attr("mine", 1)
    run.report(0.5, 3)
    assert trial.params == run.params == {"x": x}
    assert run.user_attrs["mine"] == 1
    assert study.trials[0].intermediate_values == {3: 0.5}
    study.tell(run, 1.0)
    assert study.best_params == {"x": x}


def test_artifacts_and_whatever_else_asks_for_a_trial_take_it(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("a")
    store = optuna.artifacts.FileSystemArtifactStore(tmp_path)
    run = Run.of(optuna.create_study().ask())
    assert optuna.artifacts.upload_artifact(artifact_store=store, file_path=str(file), study_or_trial=run)


def test_what_is_asked_through_it_is_noted_and_nothing_else():
    trial = optuna.create_study().ask()
    trial.suggest_int("width", 1, 8)
    run = Run.of(trial)
    lr = run.suggest_float("lr", 1e-3, 1e-1, log=True)
    n = run.suggest_int("n", 0, 4, step=2)
    op = run.suggest_categorical("op", ["a", "b"])
    run.trial.suggest_int("depth", 1, 3)
    assert run.asked == {"lr": lr, "n": n, "op": op}
    assert run.params.keys() == {"width", "depth", "lr", "n", "op"}


@pytest.mark.parametrize("stored", [FixedTrial, replay])
def test_a_lone_run_answers_from_stored_params_and_from_nothing_else(stored, capfd):
    run = Run.of(stored({"x": 3, "op": "b"}))
    assert run.lone
    assert run.suggest_int("x", 0, 9) == 3
    assert run.suggest_categorical("op", ["a", "b"]) == "b"
    with pytest.raises(ParamsMismatchError, match="'y'"):
        run.suggest_float("y", 0, 1)
    assert run.params == run.asked == {"x": 3, "op": "b"}
    with pytest.raises(ParamsMismatchError, match=r"'op'.*'b'"):
        Run.of(stored({"op": "b"})).suggest_categorical("op", ["a", "c"])
    run.report(0.5, 1)
    assert not run.should_prune()
    assert capfd.readouterr().err == ""


def test_a_lone_run_keeps_the_seed_of_its_trial():
    trial = FixedTrial({})
    record.SEED.write(trial, 7)
    assert Run.of(trial).seed == 7
    assert Run.of(FixedTrial({})).seed is None


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")  # set_metric_names
def test_metrics_are_reported_as_optuna_knows_them():
    study = optuna.create_study()
    study.set_metric_names(["val_loss"])
    run = Run.of(study.ask())
    run.report(2, {"val_loss": 0.25, "val_acc": 0.5})
    assert study.trials[0].intermediate_values == {2: 0.25}
    with pytest.raises(KeyError, match="'val_loss' is not among"):
        run.report(3, {"val_acc": 0.5})
    unnamed = Run.of(optuna.create_study().ask())
    unnamed.report(0, {"anything": 1.5})
    with pytest.raises(KeyError, match="does not say which"):
        unnamed.report(1, {"a": 1.0, "b": 2.0})


def test_of_several_objectives_all_are_kept_and_none_is_pruned():
    study = optuna.create_study(directions=["minimize", "maximize"])
    run = Run.of(study.ask())
    run.report(0, {"loss": 1.0, "acc": 0.5})
    run.report(1, {"loss": 0.5, "acc": 0.75})
    assert record.REPORTS.of(study.trials[0]) == {
        "0": {"loss": 1.0, "acc": 0.5},
        "1": {"loss": 0.5, "acc": 0.75},
    }
    assert not run.should_prune()


def test_what_breaks_a_limit_is_told_as_a_constraint_and_does_not_count():
    study = optuna.create_study()

    def objective(trial):
        Run.of(trial).refuse("flops", 2e6, "needs 3e6 FLOPs, 1e6 are allowed")

    study.optimize(objective, n_trials=1)
    [trial] = study.trials
    assert trial.state == TrialState.PRUNED
    assert trial.constraints == {"flops": 2e6}
    assert Reason.of(trial) == Reason(Why.LIMIT, "needs 3e6 FLOPs, 1e6 are allowed", cause="flops")
    assert record.end(trial) is End.INFEASIBLE
    assert not record.counts(trial)


def test_a_trained_trial_counts_whatever_limit_it_breaks_afterwards():
    study = optuna.create_study()

    def objective(trial):
        record.write_metrics(trial, {"latency": 3.0})
        Run.of(trial).refuse("latency", 1.0, "too slow")

    study.optimize(objective, n_trials=1)
    assert record.end(study.trials[0]) is End.INFEASIBLE
    assert record.counts(study.trials[0])


@pytest.mark.parametrize("violation", [0, -1.0, float("nan")])
def test_a_limit_that_is_kept_is_not_broken(violation):
    with pytest.raises(ValueError, match="must be above 0"):
        Run.of(optuna.create_study().ask()).refuse("memory", violation, "")


def test_it_knows_whether_it_was_told_to_prune():
    study = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=1.0))
    run = Run.of(study.ask())
    run.report(0.5, 0)
    assert not run.should_prune()
    run.report(1.5, 1)
    assert run.should_prune()
    assert run.told_to_prune


def test_a_pause_says_which_trial():
    with pytest.raises(TrialPaused, match="Trial 0"):
        Run.of(optuna.create_study().ask()).pause()

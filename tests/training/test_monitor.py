import optuna
import pytest
import pytorch_lightning as pl
from optuna.trial import TrialState
from torch import nn

from optnas import record
from optnas.training import weights_path


def test_every_validation_is_reported_and_the_best_epoch_counts(tmp_path, search, scripted):
    study = search(scripted(tmp_path, [0.25, 0.75, 0.5]))
    (trial,) = study.trials
    assert trial.intermediate_values == {0: 0.25, 1: 0.75, 2: 0.5}
    assert trial.value == 0.75
    assert set(record.METRICS.of(trial)) == {"score", "train_loss"}


def test_metrics_of_the_training_data_are_those_of_the_best_epoch(tmp_path, search, scripted):
    seen = []

    class Keep(pl.Callback):
        def on_train_epoch_start(self, trainer, module):  # complete only after the epoch before has ended
            seen.append(trainer.callback_metrics.get("train_loss"))

    (trial,) = search(scripted(tmp_path, [0.25, 0.75, 0.5], callbacks=lambda trial: [Keep()])).trials
    first, second = map(float, seen[1:])
    assert record.METRICS.of(trial)["train_loss"] == second != first


def test_mode_min_keeps_the_lowest(tmp_path, search, scripted):
    estimator = scripted(tmp_path, [0.5, 0.25, 0.75], mode="min")
    assert estimator.values == {"score": "minimize"}
    assert search(estimator).trials[0].value == 0.25


def test_a_pruned_trial_stops_cleanly_and_says_why(tmp_path, search, scripted):
    ended = []

    class End(pl.Callback):
        def on_fit_end(self, trainer, module):
            ended.append(trainer.current_epoch)

    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.ThresholdPruner(lower=0.5))
    search(scripted(tmp_path, [0.875, 0.125, 0.875, 0.875], callbacks=lambda trial: [End()]), study=study)
    (trial,) = study.trials
    assert (trial.state, trial.value) == (TrialState.PRUNED, 0.125)
    assert record.why(trial) == "pruned at step 1: score is 0.125"
    assert ended == [2]
    assert weights_path(study, 0) is None


def test_what_the_last_epoch_paid_for_is_complete(tmp_path, search, scripted):
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.ThresholdPruner(lower=0.5))
    assert search(scripted(tmp_path, [0.9, 0.1]), study=study).trials[0].state == TrialState.COMPLETE


def test_validation_within_epochs_reports_every_one(tmp_path, training, search):
    study = search(training(tmp_path, max_epochs=2, val_check_interval=0.5))
    assert list(study.trials[0].intermediate_values) == [0, 1, 2, 3]


def test_validation_every_second_epoch_and_sanity_checks_keep_the_epochs_number(tmp_path, training, search):
    study = search(training(tmp_path, max_epochs=4, check_val_every_n_epoch=2, num_sanity_val_steps=2))
    assert list(study.trials[0].intermediate_values) == [1, 3]


def test_a_metric_of_the_training_data_needs_no_validation(tmp_path, training, search):
    estimator = training(tmp_path, monitor="train_loss", mode="min", limit_val_batches=0)
    study = search(estimator, study=optuna.create_study())
    values = study.trials[0].intermediate_values
    assert list(values) == [0, 1, 2]
    assert study.trials[0].value == min(values.values())


def test_studies_with_several_objectives_are_not_pruned(tmp_path, linear, scripted):
    study = optuna.create_study(directions=["maximize", "minimize"])
    estimator = scripted(tmp_path, [0.125, 0.5])
    study.optimize(lambda trial: (estimator(linear(trial), trial)["score"], 1.0), n_trials=1)
    assert study.trials[0].values == [0.5, 1.0]


def test_nan_in_the_metric_ends_the_trial_as_pruned(tmp_path, search, scripted):
    study = search(scripted(tmp_path, [0.5, float("nan"), 0.5]))
    (trial,) = study.trials
    assert trial.state == TrialState.PRUNED
    assert record.why(trial) == "diverged: score is nan in epoch 1"
    assert trial.intermediate_values == {0: 0.5}


def test_a_diverging_loss_ends_the_trial_at_once(tmp_path, training, search):
    batches = []

    class Explode(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            batches.append(batch_idx)
            if trainer.current_epoch == 1 and batch_idx == 1:
                nn.init.constant_(module.model.weight, float("inf"))

    study = search(training(tmp_path, callbacks=lambda trial: [Explode()], max_epochs=5))
    (trial,) = study.trials
    assert trial.state == TrialState.PRUNED
    assert record.why(trial) == "diverged: the training loss is nan in epoch 1"
    assert batches[-1] == 2


class Stop(pl.Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_end(self, trainer, module):
        trainer.should_stop |= trainer.current_epoch == self.epoch


@pytest.mark.parametrize("options", [{"val_check_interval": 0.5}, {"max_steps": 10}, {"min_epochs": 4}, {}])
def test_pruned_trials_end_pruned_and_at_once_whatever_ends_an_epoch(tmp_path, training, search, options):
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.ThresholdPruner(upper=-1))
    study = search(training(tmp_path, max_epochs=5, **options), study=study)
    (trial,) = study.trials
    assert trial.state == TrialState.PRUNED
    assert len(trial.intermediate_values) == 1
    assert record.Reason.of(trial).kind is record.Why.PRUNED


@pytest.mark.parametrize(
    ("options", "n"),
    [({"max_steps": 10}, 2), ({"max_epochs": 2, "val_check_interval": 0.5}, 4), ({"max_epochs": 2}, 2)],
)
def test_the_last_report_of_any_budget_prunes_nothing(tmp_path, training, search, options, n):
    pruner = optuna.pruners.ThresholdPruner(upper=-1, n_warmup_steps=n - 1)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    (trial,) = search(training(tmp_path, **{"max_epochs": 9, **options}), study=study).trials
    assert (trial.state, len(trial.intermediate_values)) == (TrialState.COMPLETE, n)
    assert record.why(trial) == ""


@pytest.mark.parametrize(("min_epochs", "n"), [(None, 2), (3, 3)])
def test_what_a_callback_stops_is_complete_and_says_so(tmp_path, training, search, min_epochs, n):
    (trial,) = search(training(tmp_path, max_epochs=5, callbacks=[Stop(1)], min_epochs=min_epochs)).trials
    assert (trial.state, len(trial.intermediate_values)) == (TrialState.COMPLETE, n)
    assert record.Reason.of(trial).kind is record.Why.STOPPED
    assert trial.value == max(trial.intermediate_values.values())


def test_a_training_whose_time_is_over_before_a_validation_is_pruned_for_that(tmp_path, training, search):
    options = {"max_epochs": 10**6, "check_val_every_n_epoch": 10**6, "max_time": {"seconds": 1}}
    (trial,) = search(training(tmp_path, **options)).trials
    assert trial.state == TrialState.PRUNED
    assert record.Reason.of(trial).kind is record.Why.TIME


def test_a_state_that_cannot_be_read_back_is_said_when_it_is_written(tmp_path, caplog, training, search):
    class Odd(pl.Callback):
        def state_dict(self):
            return {"odd": TrialState.RUNNING}

    search(training(tmp_path, callbacks=[Odd()]))
    assert caplog.text.count("cannot be read back") == 1

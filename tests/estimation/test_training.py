import json
import logging
import os
import pickle
import signal
import warnings
from datetime import timedelta
from pathlib import Path

import optuna
import pytest
import pytorch_lightning as pl
import torch
from optuna.trial import TrialState
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn

from optnas.data import Digits, TensorData
from optnas.estimation import Training, tidy, trial_folder, weights_path
from optnas.estimation.data_cache import DataCache
from optnas.tasks import Classification
from optnas.trial import Draw

COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL


def points():
    torch.manual_seed(0)
    x = torch.randn(120, 2)
    return TensorData((x, (x[:, 0] > 0).long()), batch_size=16)


def linear(trial):
    return nn.Linear(2, 2)


def training(tmp_path, task=None, data=None, **options):
    settings = {"monitor": "val_acc", "mode": "max", "max_epochs": 3, "folder": tmp_path / "runs", **options}
    return Training(task or Classification(2, lr=0.05), data or points(), **settings)


def search(estimator, n_trials=1, space=linear, study=None, **options):
    study = study or optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())

    def objective(trial):
        torch.manual_seed(trial.number)
        metrics = estimator(space(trial), trial)
        trial.set_user_attr("metrics", metrics)
        return metrics[estimator.monitor]

    study.optimize(objective, n_trials=n_trials, **options)
    return study


class Scripted:
    """A task whose validation metric follows a script, one list per trial."""

    def __init__(self, *scripts):
        self.scripts = scripts

    def __call__(self, model, trial):
        module = Classification(2)(model, trial)
        script = self.scripts[trial.number]

        def log():
            module.log("score", script[module.current_epoch])

        module.on_validation_epoch_end = log
        return module


def scripted(tmp_path, *scripts, **options):
    settings = {"monitor": "score", "max_epochs": len(scripts[0]), **options}
    return training(tmp_path, Scripted(*scripts), **settings)


def test_every_validation_is_reported_and_the_best_epoch_counts(tmp_path):
    study = search(scripted(tmp_path, [0.25, 0.75, 0.5]))
    (trial,) = study.trials
    assert trial.intermediate_values == {0: 0.25, 1: 0.75, 2: 0.5}
    assert trial.value == 0.75
    assert set(trial.user_attrs["metrics"]) == {"score", "train_loss"}


def test_metrics_of_the_training_data_are_those_of_the_best_epoch(tmp_path):
    seen = []

    class Keep(pl.Callback):
        def on_train_epoch_start(self, trainer, module):  # complete only after the epoch before has ended
            seen.append(trainer.callback_metrics.get("train_loss"))

    (trial,) = search(scripted(tmp_path, [0.25, 0.75, 0.5], callbacks=lambda trial: [Keep()])).trials
    first, second = map(float, seen[1:])
    assert trial.user_attrs["metrics"]["train_loss"] == second != first


def test_mode_min_keeps_the_lowest(tmp_path):
    estimator = scripted(tmp_path, [0.5, 0.25, 0.75], mode="min")
    assert estimator.values == {"score": "minimize"}
    assert search(estimator).trials[0].value == 0.25


def test_the_model_and_the_file_hold_the_best_epochs_weights(tmp_path):
    seen = []

    class Keep(pl.Callback):
        def on_validation_end(self, trainer, module):
            seen.append(module.model.weight.detach().clone())

    models = []
    estimator = scripted(tmp_path, [0.1, 0.9, 0.3], callbacks=lambda trial: [Keep()])
    study = search(estimator, space=lambda trial: models.append(nn.Linear(2, 2)) or models[0])
    stored = torch.load(weights_path(study, 0), weights_only=True)
    assert torch.equal(models[0].weight, seen[1])
    assert torch.equal(stored["weight"], seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_values_equal_a_hand_written_loop(tmp_path):
    data = points()
    study = search(training(tmp_path, data=data, max_epochs=4))

    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    module = Classification(2, lr=0.05)(model, None)
    loader = data.train_dataloader()
    groups = [{"params": [model.weight]}, {"params": [model.bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.05, weight_decay=0.01)
    n_steps = 4 * len(loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=n_steps, pct_start=0.25)
    accuracies = []
    for _ in range(4):
        for x, y in loader:
            optimizer.zero_grad()
            module.loss(model(x), y).backward()
            optimizer.step()
            schedule.step()
        x, y = data.val
        accuracies.append((model(x).argmax(1) == y).float().mean().item())
    assert list(study.trials[0].intermediate_values.values()) == pytest.approx(accuracies)
    assert len(set(accuracies)) > 1


def test_a_pruned_trial_stops_cleanly_and_says_why(tmp_path):
    ended = []

    class End(pl.Callback):
        def on_fit_end(self, trainer, module):
            ended.append(trainer.current_epoch)

    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.ThresholdPruner(lower=0.5))
    search(scripted(tmp_path, [0.875, 0.125, 0.875, 0.875], callbacks=lambda trial: [End()]), study=study)
    (trial,) = study.trials
    assert (trial.state, trial.value) == (PRUNED, 0.125)
    assert trial.user_attrs["reason"] == "pruned at step 1: score is 0.125"
    assert ended == [2]
    assert weights_path(study, 0) is None


def test_what_the_last_epoch_paid_for_is_complete(tmp_path):
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.ThresholdPruner(lower=0.5))
    assert search(scripted(tmp_path, [0.9, 0.1]), study=study).trials[0].state == COMPLETE


def test_validation_within_epochs_reports_every_one(tmp_path):
    study = search(training(tmp_path, max_epochs=2, val_check_interval=0.5))
    assert list(study.trials[0].intermediate_values) == [0, 1, 2, 3]


def test_validation_every_second_epoch_and_sanity_checks_keep_the_epochs_number(tmp_path):
    study = search(training(tmp_path, max_epochs=4, check_val_every_n_epoch=2, num_sanity_val_steps=2))
    assert list(study.trials[0].intermediate_values) == [1, 3]


def test_a_metric_of_the_training_data_needs_no_validation(tmp_path):
    estimator = training(tmp_path, monitor="train_loss", mode="min", limit_val_batches=0)
    study = search(estimator, study=optuna.create_study())
    values = study.trials[0].intermediate_values
    assert list(values) == [0, 1, 2]
    assert study.trials[0].value == min(values.values())


def test_studies_with_several_objectives_are_not_pruned(tmp_path):
    study = optuna.create_study(directions=["maximize", "minimize"])
    estimator = scripted(tmp_path, [0.125, 0.5])
    study.optimize(lambda trial: (estimator(linear(trial), trial)["score"], 1.0), n_trials=1)
    assert study.trials[0].values == [0.5, 1.0]


def test_nan_in_the_metric_ends_the_trial_as_pruned(tmp_path):
    study = search(scripted(tmp_path, [0.5, float("nan"), 0.5]))
    (trial,) = study.trials
    assert trial.state == PRUNED
    assert trial.user_attrs["reason"] == "diverged: score is nan in epoch 1"
    assert trial.intermediate_values == {0: 0.5}


def test_a_diverging_loss_ends_the_trial_at_once(tmp_path):
    batches = []

    class Explode(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            batches.append(batch_idx)
            if trainer.current_epoch == 1 and batch_idx == 1:
                nn.init.constant_(module.model.weight, float("inf"))

    study = search(training(tmp_path, callbacks=lambda trial: [Explode()], max_epochs=5))
    (trial,) = study.trials
    assert trial.state == PRUNED
    assert trial.user_attrs["reason"] == "diverged: the training loss is nan in epoch 1"
    assert batches[-1] == 2


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        MemoryError(),
    ],
)
def test_out_of_memory_is_a_violated_constraint(tmp_path, error):
    class Large(nn.Linear):
        def forward(self, x):
            raise error

    study = search(training(tmp_path), space=lambda trial: Large(2, 2))
    (trial,) = study.trials
    assert trial.state == PRUNED
    assert trial.constraints == {"memory": 1.0}
    assert trial.user_attrs["infeasible"] == trial.user_attrs["reason"]
    assert "out of memory" in trial.user_attrs["reason"]


def test_real_exhaustion_of_the_allocator_is_recognized(tmp_path):
    class Large(nn.Linear):
        def forward(self, x):
            return super().forward(x) + torch.empty(2**60).sum()

    assert search(training(tmp_path), space=lambda trial: Large(2, 2)).trials[0].constraints == {
        "memory": 1.0
    }


@pytest.mark.parametrize(
    "sampler",
    [
        optuna.samplers.TPESampler(seed=0, n_startup_trials=3),
        optuna.samplers.GPSampler(seed=0, n_startup_trials=3),
        optuna.samplers.NSGAIISampler(seed=0, population_size=3),
    ],
)
def test_samplers_bear_trials_with_and_without_the_memory_constraint(tmp_path, sampler):
    class Wide(nn.Linear):
        def forward(self, x):
            if self.width > 6:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(x)

    def space(trial):
        model = Wide(2, 2)
        model.width = trial.suggest_int("width", 1, 9)
        return model

    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=optuna.pruners.NopPruner())
    search(training(tmp_path, max_epochs=1), n_trials=10, space=space, study=study)
    assert {trial.state for trial in study.trials} == {COMPLETE, PRUNED}


def test_errors_in_code_are_not_out_of_memory(tmp_path):
    class Broken(nn.Linear):
        def forward(self, x):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    study = search(training(tmp_path), space=lambda trial: Broken(2, 2), catch=RuntimeError)
    assert study.trials[0].state == FAIL


def test_the_time_limit_ends_a_trial_with_what_it_has(tmp_path):
    study = search(training(tmp_path, max_epochs=100_000, time_limit=0.5))
    (trial,) = study.trials
    assert trial.state == COMPLETE
    assert trial.user_attrs["reason"] == "time limit of 0:00:00.500000 reached"
    assert trial.duration < timedelta(seconds=20)
    assert trial.value == max(trial.intermediate_values.values())


def test_the_best_k_keep_their_weights(tmp_path):
    scores = [0.5, 0.1, 0.9, 0.2, 0.8, 0.3]
    study = search(scripted(tmp_path, *[[score] for score in scores], keep=2), n_trials=6)
    tidy(study, 2)
    stored = [number for number in range(6) if weights_path(study, number)]
    assert stored == [2, 4]
    assert study.user_attrs["deleted_checkpoints"] == [0, 1, 3, 5]
    assert tidy(study, 2) == []
    assert sorted(path.name for path in (tmp_path / "runs").rglob("*.*t")) == ["weights.pt"] * 2


def test_tidy_leaves_running_and_waiting_trials_alone(tmp_path):
    study = search(scripted(tmp_path, [0.5], [0.4]), n_trials=2)
    study.ask()
    study.enqueue_trial({})
    for number in (2, 3):
        attempt = trial_folder(study, number) / "attempt-0"
        attempt.mkdir(parents=True)
        for name in ("weights.pt", "epoch-00000.ckpt"):
            (attempt / name).touch()
    tidy(study, 0)
    left = sorted(str(path.relative_to(tmp_path / "runs")) for path in (tmp_path / "runs").rglob("*.*t"))
    assert left == [f"trial-000{n}/attempt-0/{f}" for n in (2, 3) for f in ("epoch-00000.ckpt", "weights.pt")]


def test_infeasible_trials_rank_last(tmp_path):
    study = optuna.create_study(direction="maximize")
    estimator = scripted(tmp_path, [0.9], [0.1], keep=1)

    def objective(trial):
        trial.set_constraint("flops", 1.0 if trial.number == 0 else -1.0)
        return estimator(linear(trial), trial)["score"]

    study.optimize(objective, n_trials=2)
    tidy(study, 1)
    assert [weights_path(study, number) is not None for number in (0, 1)] == [False, True]


def test_keep_zero_leaves_no_weights(tmp_path):
    study = search(training(tmp_path, keep=0), n_trials=2)
    tidy(study, 0)
    assert not list((tmp_path / "runs").rglob("*.*"))


def test_folders_follow_the_study_unless_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = optuna.create_study(study_name="my study/1", direction="maximize")
    search(training(tmp_path, folder=None), study=study)
    assert weights_path(study, 0) == Path("runs/my_study_1/trial-0000/attempt-0/weights.pt")
    study.set_user_attr("folder", str(tmp_path / "there"))
    search(training(tmp_path, folder=None), study=study)
    assert weights_path(study, 1) == tmp_path / "there/trial-0001/attempt-0/weights.pt"


def test_a_folder_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Cannot write .*file.*Training\(folder="):
        search(training(tmp_path, folder=tmp_path / "file"))


def test_stored_trials_train_without_files(tmp_path):
    study = search(training(tmp_path))
    frozen = study.trials[0]
    model = linear(None)
    again = training(tmp_path, folder=tmp_path / "other")
    metrics = again(model, frozen)
    assert metrics["val_acc"] > 0.5
    assert not (tmp_path / "other").exists()
    x, y = again.data.test
    assert again.test(model, frozen)["test_acc"] == pytest.approx(
        (model(x).argmax(1) == y).float().mean().item()
    )


def test_callbacks_are_copied_for_every_trial(tmp_path):
    stopping = EarlyStopping("score", mode="max", patience=1)
    study = search(scripted(tmp_path, [0.5, 0.4, 0.3], [0.5, 0.4, 0.3], callbacks=[stopping]), n_trials=2)
    assert [len(trial.intermediate_values) for trial in study.trials] == [2, 2]
    assert stopping.wait_count == 0


def test_the_users_own_checkpoints_work(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path / "own", filename="{epoch}", save_top_k=-1)
    search(training(tmp_path, callbacks=[checkpoint], max_epochs=2))
    assert sorted(os.listdir(tmp_path / "own")) == ["epoch=0.ckpt", "epoch=1.ckpt"]


def test_loggers_have_a_folder_per_trial(tmp_path):
    def logger(trial):
        return TensorBoardLogger(trial_folder(trial.study, trial.number), name="", version="board")

    study = search(training(tmp_path, logger=logger, log_every_n_steps=1, keep=0), n_trials=2)
    tidy(study, 0)
    for number in (0, 1):
        assert list((trial_folder(study, number) / "board").glob("events*"))
    with pytest.raises(TypeError, match="logger=lambda trial: TensorBoardLogger"):
        training(tmp_path, logger=TensorBoardLogger(tmp_path))


def test_a_search_is_quiet_unless_asked(tmp_path, capfd, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search(training(tmp_path))
    assert capfd.readouterr().out == ""
    assert not [record for record in caplog.records if "lightning" in record.name]
    filters = list(warnings.filters)
    search(training(tmp_path, enable_progress_bar=True))
    assert "Epoch 2" in capfd.readouterr().out
    assert list(warnings.filters) == filters
    assert logging.getLogger("pytorch_lightning").level != logging.ERROR


def test_more_than_one_device_is_refused(tmp_path):
    for devices in (2, -1, "auto", [0, 1]):
        with pytest.raises(ValueError, match="a trial trains on one device"):
            training(tmp_path, devices=devices)
    training(tmp_path, devices=[3])


def test_wrong_settings_name_the_way_out(tmp_path):
    with pytest.raises(ValueError, match="'max' or 'min'"):
        training(tmp_path, mode="maximize")
    with pytest.raises(ValueError, match=r"val_accuracy.*val_acc, val_loss"):
        search(training(tmp_path, monitor="val_accuracy"))
    with pytest.raises(ValueError, match="without one validation"):
        search(training(tmp_path, max_epochs=0))


def test_ask_asks_everything_and_trains_nothing(tmp_path):
    def data(trial):
        module = points()
        module.batch_size = trial.suggest_categorical("batch_size", [8, 16])
        return module

    estimator = training(tmp_path, Classification(2, lr=(0.01, 0.1)), data)
    trial = Draw(lambda name, distribution: {"batch_size": 8, "lr": 0.05}[name])
    estimator.ask(nn.Linear(2, 2, device="meta"), trial)
    assert trial.params == {"batch_size": 8, "lr": 0.05}
    study = search(estimator)
    assert set(study.trials[0].params) == {"batch_size", "lr"}


def test_data_of_the_trial_is_made_once_per_answer():
    made = []

    def data(trial):
        module = points()
        module.name = trial.suggest_categorical("kind", ["a", "b"])
        if module.name == "b":
            module.name += trial.suggest_categorical("detail", ["x", "y"])
        made.append(module.name)
        return module

    cache = DataCache(data)
    for answers in ({"kind": "a"}, {"kind": "b", "detail": "x"}) * 3:
        trial = Draw(lambda name, distribution, answers=answers: answers[name])
        assert cache(trial).name == "".join(answers.values())
        assert trial.params == answers
    assert made == ["a", "bx"]
    cache(Draw(lambda name, distribution: {"kind": "b", "detail": "y"}[name]))
    assert made == ["a", "bx", "by"]


def test_data_is_set_up_once_per_process(tmp_path):
    calls = []

    class Counted(pl.LightningDataModule):
        def prepare_data(self):
            calls.append("prepare")

        def setup(self, stage):
            calls.append(stage)
            self.digits = points()

        def teardown(self, stage):
            calls.append("teardown")

        def train_dataloader(self):
            return self.digits.train_dataloader()

        def val_dataloader(self):
            return self.digits.val_dataloader()

        def test_dataloader(self):
            return self.digits.test_dataloader()

    estimator = training(tmp_path, data=Counted())
    study = search(estimator, n_trials=3)
    assert calls == ["prepare", "fit"]
    estimator.test(nn.Linear(2, 2), study.trials[0])
    assert calls == ["prepare", "fit", "test"]


def test_example_is_two_samples_and_disturbs_no_randomness(tmp_path):
    estimator = training(tmp_path, data=Digits())
    before = torch.get_rng_state()
    assert estimator.example(None).shape == (2, 1, 8, 8)
    assert torch.equal(torch.get_rng_state(), before)
    tokens = {"tokens": torch.arange(20).reshape(10, 2), "mask": torch.ones(10)}
    example = training(tmp_path, data=TensorData((tokens, torch.zeros(10)))).example(None)
    assert {name: part.shape[0] for name, part in example.items()} == {"tokens": 2, "mask": 2}


def test_settings_tell_what_changes_the_result(tmp_path):
    same = [training(tmp_path).settings for _ in range(2)]
    assert same[0] == same[1]
    assert json.loads(json.dumps(same[0])) == same[0]
    others = [
        training(tmp_path, max_epochs=4),
        training(tmp_path, Classification(2, lr=0.1)),
        training(tmp_path, lambda model, trial: Classification(2)(model, trial)),
        training(tmp_path, data=Digits()),
        training(tmp_path, gradient_clip_val=1.0),
        training(tmp_path, callbacks=[EarlyStopping("val_acc", patience=2)]),
        training(tmp_path, callbacks=[EarlyStopping("val_acc", patience=3)]),
        training(tmp_path, time_limit=3),
    ]
    assert len({json.dumps(estimator.settings) for estimator in [training(tmp_path), *others]}) == 9
    assert training(tmp_path, folder="elsewhere", keep=1).settings == same[0]


def test_an_estimator_travels_to_another_process(tmp_path):
    estimator = training(tmp_path)
    search(estimator)
    assert search(pickle.loads(pickle.dumps(estimator))).trials[0].state == COMPLETE


def test_signal_handlers_are_as_before(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    search(training(tmp_path))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before

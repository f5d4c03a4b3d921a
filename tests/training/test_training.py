import copy
import json
import os
import pickle

import optuna
import pytest
import pytorch_lightning as pl
import torch
from optuna.trial import FixedTrial, TrialState
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.profilers import SimpleProfiler
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from optnas import record
from optnas.data import Digits, TensorData
from optnas.errors import ParamsMismatchError, UntestableError
from optnas.estimation.run import Run
from optnas.tasks import Classification
from optnas.training import tidy, trial_folder, weights_path
from optnas.trial import Draw


def test_the_model_and_the_file_hold_the_best_epochs_weights(tmp_path, search, scripted):
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


def test_values_equal_a_hand_written_loop(tmp_path, points, training, search):
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


def test_the_time_limit_ends_a_trial_with_what_it_has(tmp_path, training, search):
    study = search(training(tmp_path, max_epochs=100_000, time_limit=0.5))
    (trial,) = study.trials
    assert trial.state == TrialState.COMPLETE
    assert record.why(trial) == "time limit of 0:00:00.500000 reached"
    assert len(trial.intermediate_values) < 100_000
    assert trial.value == max(trial.intermediate_values.values())


def test_keep_zero_leaves_no_weights(tmp_path, training, search):
    study = search(training(tmp_path, keep=0), n_trials=2)
    tidy(study, 0)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["study.json"]


def test_folders_follow_the_study_unless_told(tmp_path, monkeypatch, training, search):
    monkeypatch.chdir(tmp_path)
    study = optuna.create_study(study_name="my study/1", direction="maximize")
    search(training(tmp_path, folder=None), study=study)
    assert weights_path(study, 0) == tmp_path / "runs/my_study_1/trial-0000/attempt-0/weights.pt"
    study.set_user_attr(record.FOLDER.name, str(tmp_path / "there"))
    search(training(tmp_path, folder=None), study=study)
    assert weights_path(study, 1) == tmp_path / "there/trial-0001/attempt-0/weights.pt"


def test_a_folder_that_cannot_be_written_says_so(tmp_path, training, search):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Cannot write .*file.*Training\(folder="):
        search(training(tmp_path, folder=tmp_path / "file"))


def test_stored_trials_train_without_files(tmp_path, linear, training, search):
    study = search(training(tmp_path))
    frozen = study.trials[0]
    torch.manual_seed(2)  # weights that three epochs are enough for
    model = linear(None)
    again = training(tmp_path, folder=tmp_path / "other")
    metrics = again.estimate_and_test(model, Run.of(frozen))
    assert metrics["val_acc"] > 0.5
    assert not (tmp_path / "other").exists()
    for metric, (x, y) in {"val_acc": again.data.val, "test_acc": again.data.test}.items():
        assert metrics[metric] == pytest.approx((model(x).argmax(1) == y).float().mean().item())


def test_what_cannot_be_tested_says_what_is_missing(tmp_path, points, linear, training, search):
    class Untested(pl.LightningModule):
        pass

    splits = points()
    study = search(training(tmp_path))
    data = pl.LightningDataModule.from_datasets(splits.train, splits.val)
    with pytest.raises(UntestableError, match=r"LightningDataModule has no test_dataloader\(\)"):
        training(tmp_path, data=data).test(linear(None), study, study.trials[0])
    with pytest.raises(UntestableError, match=r"Untested has no test_step\(\)"):
        training(tmp_path, lambda model, trial: Untested()).test(linear(None), study, study.trials[0])


def test_callbacks_are_copied_for_every_trial(tmp_path, search, scripted):
    stopping = EarlyStopping("score", mode="max", patience=1)
    study = search(scripted(tmp_path, [0.5, 0.4, 0.3], [0.5, 0.4, 0.3], callbacks=[stopping]), n_trials=2)
    assert [len(trial.intermediate_values) for trial in study.trials] == [2, 2]
    assert stopping.wait_count == 0


def test_the_users_own_checkpoints_work(tmp_path, training, search):
    checkpoint = ModelCheckpoint(tmp_path / "own", filename="{epoch}", save_top_k=-1)
    search(training(tmp_path, callbacks=[checkpoint], max_epochs=2))
    assert sorted(os.listdir(tmp_path / "own")) == ["epoch=0.ckpt", "epoch=1.ckpt"]


def test_loggers_have_a_folder_per_trial(tmp_path, training, search):
    def logger(trial):
        return TensorBoardLogger(trial_folder(trial.study, trial.number), name="", version="board")

    study = search(training(tmp_path, logger=logger, log_every_n_steps=1, keep=0), n_trials=2)
    tidy(study, 0)
    for number in (0, 1):
        assert list((trial_folder(study, number) / "board").glob("events*"))
    with pytest.raises(TypeError, match="logger=lambda trial: TensorBoardLogger"):
        training(tmp_path, logger=TensorBoardLogger(tmp_path))


def test_more_than_one_device_is_refused(tmp_path, training):
    for devices in (2, -1, "auto", [0, 1]):
        with pytest.raises(ValueError, match="a trial trains on one device"):
            training(tmp_path, devices=devices)
    training(tmp_path, devices=[3])


def test_wrong_settings_name_the_way_out(tmp_path, training, search):
    with pytest.raises(ValueError, match="'max' or 'min'"):
        training(tmp_path, mode="maximize")
    with pytest.raises(ValueError, match=r"val_accuracy.*val_acc, val_loss"):
        search(training(tmp_path, monitor="val_accuracy"))
    for none in (0, -2):
        with pytest.raises(ValueError, match=rf"max_epochs={none}\): give at least 1"):
            training(tmp_path, max_epochs=none)


@pytest.mark.parametrize(
    ("monitor", "mode"), [("val_loss", "max"), ("val/acc", "min"), ("val_MAE", "max"), ("val_f1", "min")]
)
def test_a_mode_that_the_name_of_the_metric_contradicts_is_told(tmp_path, training, monitor, mode):
    other = {"max": "min", "min": "max"}[mode]
    with pytest.warns(UserWarning, match=f"If that is a mistake, say mode='{other}'"):
        training(tmp_path, monitor=monitor, mode=mode)
    training(tmp_path, monitor=monitor, mode=other)  # a warning would be an error here


@pytest.mark.parametrize("monitor", ["val_f1", "score"])
def test_stopping_a_training_that_gets_better_is_told(tmp_path, training, monitor):
    with pytest.warns(UserWarning, match=rf"EarlyStopping\(monitor='{monitor}', mode='min'.*say mode='max'"):
        training(tmp_path, monitor=monitor, callbacks=[EarlyStopping(monitor)])
    training(tmp_path, monitor=monitor, callbacks=[EarlyStopping(monitor, mode="max")])
    training(tmp_path, monitor=monitor, callbacks=[EarlyStopping("val_loss")])


class _Contrary(pl.LightningModule):
    """Learns nothing, and has its own callback and schedule, for which a low `val_acc` is good."""

    def __init__(self, model, part):
        super().__init__()
        self.model, self.part = model, part

    def configure_callbacks(self):
        return [EarlyStopping("val_acc")] if self.part == "callback" else []

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="min")
        schedule = {"lr_scheduler": {"scheduler": plateau, "monitor": "val_acc"}}
        return {"optimizer": optimizer, **(schedule if self.part == "schedule" else {})}

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", 0.5)


@pytest.mark.parametrize(
    ("part", "who"),
    [("callback", "EarlyStopping"), ("schedule", "ReduceLROnPlateau"), ("function", "EarlyStopping")],
)
def test_what_a_task_or_a_function_makes_against_a_training_that_gets_better_is_told_once(
    tmp_path, training, search, part, who
):
    callbacks = (lambda trial: [EarlyStopping("val_acc")]) if part == "function" else ()
    estimator = training(tmp_path, lambda model, trial: _Contrary(model, part), callbacks=callbacks)
    with pytest.warns(UserWarning, match=rf"{who}\(monitor='val_acc', mode='min'\).*say mode='max'") as told:
        search(estimator, n_trials=2)
    assert len(told) == 1


def test_an_iterator_that_lasts_for_one_epoch_is_told(tmp_path, points, training, search):
    data = points()
    data.train_dataloader = lambda: iter(TensorData.train_dataloader(data))
    search(training(tmp_path, data=data, max_epochs=1))
    with pytest.raises(ValueError, match=r"In epoch 1 the training data had no batch.*no iterator"):
        search(training(tmp_path, data=data, max_epochs=2))


def test_a_model_in_eval_mode_is_told_before_it_is_trained_so(tmp_path, training):
    model = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    training(tmp_path).rehearse(model, Run.of(FixedTrial({})))
    model[1].eval()  # a part may be meant
    training(tmp_path).rehearse(model, Run.of(FixedTrial({})))
    with pytest.warns(UserWarning, match=r"eval mode.*end the space with model.train"):
        training(tmp_path).rehearse(model.eval(), Run.of(FixedTrial({})))


def test_ask_asks_everything_and_trains_nothing(tmp_path, points, training, search):
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


def test_example_is_two_samples_and_disturbs_no_randomness(tmp_path, training):
    estimator = training(tmp_path, data=Digits())
    before = torch.get_rng_state()
    assert estimator.example(None).shape == (2, 1, 8, 8)
    assert torch.equal(torch.get_rng_state(), before)
    tokens = {"tokens": torch.arange(20).reshape(10, 2), "mask": torch.ones(10)}
    example = training(tmp_path, data=TensorData((tokens, torch.zeros(10)))).example(None)
    assert {name: part.shape[0] for name, part in example.items()} == {"tokens": 2, "mask": 2}


def test_settings_tell_what_changes_the_result(tmp_path, training):
    same = [training(tmp_path).settings for _ in range(2)]
    assert same[0] == same[1]
    assert json.loads(json.dumps(same[0])) == same[0]
    others = [
        training(tmp_path, max_epochs=4),
        training(tmp_path, Classification(2, lr=0.1)),
        training(tmp_path, lambda model, trial: Classification(2)(model, trial)),
        training(tmp_path, data=Digits()),
        training(tmp_path, gradient_clip_val=1.0),
        training(tmp_path, callbacks=[EarlyStopping("val_loss", patience=2)]),
        training(tmp_path, callbacks=[EarlyStopping("val_loss", patience=3)]),
        training(tmp_path, time_limit=3),
    ]
    assert len({json.dumps(estimator.settings) for estimator in [training(tmp_path), *others]}) == 9
    assert training(tmp_path, folder="elsewhere", keep=1).settings == same[0]


@pytest.mark.parametrize(
    ("trainer", "max_epochs", "reports"),
    [
        ({}, 8, 8),
        ({"val_check_interval": 0.5}, 8, 16),
        ({"val_check_interval": 2}, 3, 6),
        ({"val_check_interval": 2, "check_val_every_n_epoch": None}, 3, 7),
        ({"max_steps": 10}, 100, 2),
        ({"max_steps": 10}, -1, 2),
        ({"max_steps": 6, "accumulate_grad_batches": 2}, 100, 2),
        ({"limit_train_batches": 2, "val_check_interval": 1}, 3, 6),
        ({"fast_dev_run": True}, 9, 1),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_reports_are_as_many_as_expected(tmp_path, training, search, trainer, max_epochs, reports):
    estimator = training(tmp_path, max_epochs=max_epochs, **trainer)  # 5 batches an epoch
    assert estimator.max_reports == reports
    (trial,) = search(estimator).trials
    assert trial.state == TrialState.COMPLETE
    assert len(trial.intermediate_values) == reports
    assert record.why(trial) == ""


def test_a_training_without_an_end_is_refused(tmp_path, training):
    for max_epochs in (None, -1):
        with pytest.raises(ValueError, match="would never end"):
            training(tmp_path, max_epochs=max_epochs)
    with pytest.raises(ValueError, match="logs no metric"):
        training(tmp_path, barebones=True)
    assert training(tmp_path, max_epochs=None, time_limit=1).max_reports == 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "options",
    [
        {"enable_checkpointing": False}, {"detect_anomaly": True}, {"precision": "bf16-mixed"},
        {"accumulate_grad_batches": 2}, {"gradient_clip_val": 0.5}, {"profiler": "simple"}, {"logger": True},
        {"overfit_batches": 2}, {"limit_val_batches": 1}, {"max_epochs": None, "max_steps": 7},
        {"max_time": {"hours": 1}}, {"plugins": [TorchCheckpointIO()]}, {"num_sanity_val_steps": -1},
        {"profiler": SimpleProfiler()},
    ],
)  # fmt: skip
def test_arguments_of_the_trainer_work(tmp_path, monkeypatch, training, search, options):
    monkeypatch.chdir(tmp_path)
    for trial in search(training(tmp_path, **options), n_trials=2).trials:
        assert trial.state == TrialState.COMPLETE
        assert trial.value == max(trial.intermediate_values.values())


class Head(pl.LightningModule):
    """The head of what is trained is the task's; the space builds what is below it."""

    def __init__(self, model, alter=lambda model: model):
        super().__init__()
        self.save_hyperparameters()  # the model too, and a function
        self.model, self.head = alter(model), nn.Linear(2, 2)

    def _log(self, part, batch):
        self.log(f"{part}_acc", (self.head(self.model(batch[0])).argmax(1) == batch[1]).float().mean())

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.head(self.model(batch[0])), batch[1])

    def validation_step(self, batch, batch_idx):
        self._log("val", batch)

    def test_step(self, batch, batch_idx):
        self._log("test", batch)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.05)


def weight_norm(model):
    return torch.nn.utils.parametrizations.weight_norm(model)


@pytest.mark.filterwarnings("ignore:Attribute")
@pytest.mark.parametrize("alter", [lambda model: model, weight_norm, torch.nn.Sequential])
def test_what_the_task_adds_and_alters_is_tested_as_it_was_scored(
    tmp_path, caplog, points, training, search, alter
):
    split = points().val
    data = TensorData(split, val=split, test=split)
    estimator = training(tmp_path, lambda model, trial: Head(model, alter), data)
    study = search(estimator)
    (trial,) = study.trials
    assert "cannot be read back" not in caplog.text  # in spite of its hyperparameters
    tests = [estimator.test(nn.Linear(2, 2), study, trial)["test_acc"] for _ in range(2)]
    assert tests == [trial.value, trial.value]
    again = estimator.estimate_and_test(nn.Linear(2, 2), Run.of(trial))
    assert again["test_acc"] == again["val_acc"]
    assert not estimator.trained(nn.Linear(2, 2), study, trial).training


def test_a_task_that_trains_a_copy_is_blamed_for_that(tmp_path, training, search):
    estimator = training(tmp_path, lambda model, trial: Classification(2)(copy.deepcopy(model), trial))
    study = search(estimator)
    with pytest.raises(ParamsMismatchError, match="task trains a copy of the model"):
        estimator.trained(nn.Linear(2, 2), study, study.trials[0])


def test_what_a_callback_alters_is_not_blamed_on_the_space(tmp_path, training, search):
    class Alter(pl.Callback):
        def on_train_start(self, trainer, module):
            weight_norm(module.model)

    estimator = training(tmp_path, callbacks=[Alter()])
    study = search(estimator)
    with pytest.raises(ParamsMismatchError, match="a callback altered the network of trial 0"):
        estimator.trained(nn.Linear(2, 2), study, study.trials[0])
    with pytest.raises(ParamsMismatchError, match="space does not build the network"):
        estimator.trained(nn.Linear(2, 3), study, study.trials[0])


def test_several_trainings_in_one_trial_do_not_share_states(tmp_path, points, training):
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())
    parts = points().train
    folds = [
        training(
            tmp_path, data=pl.LightningDataModule.from_datasets(*[TensorDataset(*parts)] * 2, batch_size=n)
        )
        for n in (16, 16, 8)
    ]
    trial = study.ask()
    values = [fold(nn.Linear(2, 2), trial)["train_loss"] for fold in folds]
    assert len(set(values)) == 3
    found = [path.parent.name for path in sorted((tmp_path / "runs").rglob("attempt-0"))]
    assert found == ["trial-0000", "training-1", "training-2"]


def test_a_rehearsal_finds_mistakes_and_leaves_nothing(tmp_path, monkeypatch, points, training):
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(1)
    loader = DataLoader(TensorDataset(*points().train), batch_size=8, shuffle=True, generator=generator)
    data = pl.LightningDataModule()
    data.train_dataloader = data.val_dataloader = lambda: loader
    seen = []
    noisy = pl.callbacks.LambdaCallback(on_train_start=lambda trainer, module: seen.append(1))
    model, run = nn.Linear(2, 2), Run.of(FixedTrial({}))

    def state():
        return [generator.get_state(), torch.get_rng_state(), *model.state_dict().values()]

    def plateau(model, trial):
        module = Classification(2)(model, trial)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        configured = {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}
        module.configure_optimizers = lambda: configured
        return module

    before = [value.clone() for value in state()]
    training(tmp_path, data=data, check_val_every_n_epoch=2).rehearse(model, run)
    training(tmp_path, data=data, task=plateau).rehearse(model, run)
    training(tmp_path, data=data, callbacks=[noisy], logger=True).rehearse(model, run)
    assert all(map(torch.equal, before, state()))
    assert (seen, list(tmp_path.iterdir())) == ([], [])
    for match, options in {
        "val_accuracy": {"monitor": "val_accuracy"},
        "n_classes=3": {"task": Classification(3)},
        "val_los": {"callbacks": [EarlyStopping("val_los")]},
        "precision|nonsense": {"precision": "nonsense"},
        "val_loss": {"task": plateau, "check_val_every_n_epoch": 2},  # which epoch 0 does not know
    }.items():
        with pytest.raises((ValueError, RuntimeError, MisconfigurationException), match=match):
            training(tmp_path, **{"data": data, **options}).rehearse(model, run)
    assert all(map(torch.equal, before, state()))


def test_a_network_too_large_is_no_mistake_in_the_settings(tmp_path, training):
    class Large(nn.Linear):
        def forward(self, x):
            return super().forward(x) + torch.empty(2**60).sum()

    training(tmp_path).rehearse(Large(2, 2), Run.of(FixedTrial({})))


def test_data_that_sets_up_its_test_only_for_a_test_is_tested(tmp_path, points, training, search):
    class Late(pl.LightningDataModule):
        def setup(self, stage):
            setattr(self, stage, points())

        def train_dataloader(self):
            return self.fit.train_dataloader()

        def val_dataloader(self):
            return self.fit.val_dataloader()

        def test_dataloader(self):
            return self.test.test_dataloader()

    estimator = training(tmp_path, data=Late())
    study = search(estimator)
    for _ in range(2):
        assert "test_acc" in estimator.test(nn.Linear(2, 2), study, study.trials[0])


def test_an_estimator_travels_to_another_process(tmp_path, training, search):
    estimator = training(tmp_path)
    search(estimator)
    assert search(pickle.loads(pickle.dumps(estimator))).trials[0].state == TrialState.COMPLETE


def test_states_of_an_interrupted_trial_outlive_the_next_training(tmp_path, linear, training):
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())
    estimator = training(tmp_path)
    first, second, third = study.ask(), study.ask(), study.ask()

    def states(trial):
        return list(trial_folder(study, trial.number).rglob("epoch-*"))

    estimator(linear(first), first)  # and its process is interrupted before the study is told
    estimator(linear(second), second)
    assert states(first)
    study.tell(second, 0.5)
    estimator(linear(third), third)
    assert not states(second)


def test_each_of_several_test_loaders_is_tested(tmp_path, points, linear, training, search):
    splits = points()
    others = [TensorDataset(*splits.val), TensorDataset(*splits.test)]
    data = pl.LightningDataModule.from_datasets(TensorDataset(*splits.train), others, others, batch_size=7)
    estimator, study = training(tmp_path, data=data), search(training(tmp_path))
    model = estimator.trained(linear(None), study, study.trials[0])
    metrics = estimator.test(linear(None), study, study.trials[0])
    for i, (x, y) in enumerate((splits.val, splits.test)):
        accuracy = (model(x).argmax(1) == y).float().mean().item()
        assert metrics[f"test_acc/dataloader_idx_{i}"] == pytest.approx(accuracy)


def test_what_is_logged_once_for_all_test_loaders_has_one_value(tmp_path, points, training):
    class AtTheEnd(pl.LightningModule):
        def test_step(self, batch, batch_idx, dataloader_idx=0):
            self.log("each", float(dataloader_idx))

        def on_test_epoch_end(self):
            self.log("score", 0.5)

    data = points()
    data.test_dataloader = lambda: [data.val_dataloader(), data.val_dataloader()]
    estimator = training(tmp_path, task=lambda model, trial: AtTheEnd(), data=data)
    metrics = estimator._test(AtTheEnd(), data, Draw(lambda name, distribution: None))
    assert metrics == {"each/dataloader_idx_0": 0.0, "each/dataloader_idx_1": 1.0, "score": 0.5}


def test_settings_see_the_data_whoever_makes_it(tmp_path, points, training):
    def fold(rows):
        return pl.LightningDataModule.from_datasets(Subset(TensorDataset(torch.arange(9)), rows))

    def batches(size):
        data = points()
        data.batch_size = size
        return data

    made = [
        fold([0, 1]),
        fold([0, 2]),
        lambda trial: fold([0, 1]),
        lambda trial: fold([0, 2]),
        batches(8),
        batches(16),
    ]
    settings = [json.dumps(training(tmp_path, data=data).settings) for data in made]
    assert len(set(settings)) == len(settings)
    assert json.dumps(training(tmp_path, data=fold([0, 1])).settings) == settings[0]


def test_settings_are_those_before_the_first_use(tmp_path, linear, training):
    class Counted(pl.LightningDataModule):
        made = 0

        def train_dataloader(self):
            Counted.made += 1
            return DataLoader(TensorDataset(torch.zeros(4, 2), torch.zeros(4).long()))

    estimator, other = (training(tmp_path, data=Counted()) for _ in range(2))
    fresh = other.settings
    estimator.example(Draw(lambda name, distribution: None))
    assert Counted.made > 0
    assert estimator.settings == fresh


@pytest.mark.parametrize(
    ("options", "steps"),
    [({"max_steps": 4}, 5), ({"max_steps": 9, "check_val_every_n_epoch": 2}, 10)],
)
def test_steps_that_end_before_the_first_validation_are_told_in_the_rehearsal(
    tmp_path, training, linear, options, steps
):
    rehearsed = training(tmp_path, **options)  # 76 points of training in batches of 16
    run = Run.of(FixedTrial({}))
    with pytest.raises(ValueError, match=rf"ends before its first validation.* after {steps} steps"):
        rehearsed.rehearse(linear(None), run)
    enough = {**options, "max_steps": steps}
    training(tmp_path, **enough).rehearse(linear(None), run)

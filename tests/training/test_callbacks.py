"""Every callback that Lightning ships, in a training: the trial has the right value, and the winner too."""

import threading

import optuna
import pytest
import pytorch_lightning as pl
import torch
from optuna.trial import TrialState
from pytorch_lightning import callbacks
from torch import nn
from torch.nn.functional import cross_entropy

from optnas.tasks import Supervised

# How each is made; those that cannot be made by themselves are base classes of others here.
MADE = {
    "BackboneFinetuning": lambda: callbacks.BackboneFinetuning(unfreeze_backbone_at_epoch=1),
    "BatchSizeFinder": lambda: callbacks.BatchSizeFinder(max_trials=2),
    "Callback": lambda: callbacks.Callback(),
    "DeviceStatsMonitor": lambda: callbacks.DeviceStatsMonitor(),
    "EarlyStopping": lambda: callbacks.EarlyStopping("val_loss", patience=1),
    "GradientAccumulationScheduler": lambda: callbacks.GradientAccumulationScheduler({1: 2}),
    "LambdaCallback": lambda: callbacks.LambdaCallback(on_train_start=lambda trainer, module: None),
    "LearningRateFinder": lambda: callbacks.LearningRateFinder(num_training_steps=5),
    "LearningRateMonitor": lambda: callbacks.LearningRateMonitor(),
    "ModelCheckpoint": lambda: callbacks.ModelCheckpoint(monitor="val_loss"),
    "ModelPruning": lambda: callbacks.ModelPruning("l1_unstructured", amount=0.2),
    "ModelSummary": lambda: callbacks.ModelSummary(),
    "OnExceptionCheckpoint": lambda: callbacks.OnExceptionCheckpoint("crashes"),
    "ProgressBar": lambda: callbacks.ProgressBar(),
    "RichModelSummary": lambda: callbacks.RichModelSummary(),
    "RichProgressBar": lambda: callbacks.RichProgressBar(),
    "SpikeDetection": lambda: callbacks.SpikeDetection(),
    "StochasticWeightAveraging": lambda: callbacks.StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=2),
    "ThroughputMonitor": lambda: callbacks.ThroughputMonitor(batch_size_fn=lambda batch: len(batch[0])),
    "Timer": lambda: callbacks.Timer(duration={"hours": 1}),
    "TQDMProgressBar": lambda: callbacks.TQDMProgressBar(),
    "EMAWeightAveraging": lambda: callbacks.EMAWeightAveraging(decay=0.9),
    "WeightAveraging": lambda: callbacks.WeightAveraging(),
}
LOGGING = {"DeviceStatsMonitor", "LearningRateMonitor", "ThroughputMonitor"}
ABSTRACT = {"BaseFinetuning", "BasePredictionWriter", "Checkpoint"}


class Task(Supervised):
    """With a learning rate to be found, and a part that is called the backbone."""

    def __init__(self, model):
        super().__init__(model, nn.CrossEntropyLoss(), {}, 0.05, 0.0)

    @property
    def backbone(self):
        return self.model[0]

    def configure_optimizers(self):
        trained = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.SGD(trained, self.lr, momentum=0.9)


def space(trial):
    return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def test_all_of_lightnings_callbacks_are_tried():
    assert MADE.keys() | ABSTRACT == set(callbacks.__all__)


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on each of them
@pytest.mark.parametrize("name", MADE)
def test_a_callback_of_lightning_leaves_the_value_right(
    tmp_path, monkeypatch, points, training, search, name
):
    monkeypatch.chdir(tmp_path)
    data = points()
    estimator = training(
        tmp_path, lambda model, trial: Task(model), data, monitor="val_loss", mode="min", max_epochs=4,
        callbacks=[MADE[name]()], logger=name in LOGGING,
        log_every_n_steps=1,
    )  # fmt: skip
    study = search(
        estimator, space=space, study=optuna.create_study(pruner=optuna.pruners.NopPruner()), n_trials=2
    )
    for trial in study.trials:
        assert trial.state == TrialState.COMPLETE
        assert trial.value == min(trial.intermediate_values.values())
    model = estimator.trained(space(None), study, study.trials[1])
    x, y = data.val
    with torch.no_grad():
        assert cross_entropy(model(x), y).item() == pytest.approx(study.trials[1].value, rel=1e-4)
    assert data.batch_size == 16


def test_weights_that_a_users_callback_swaps_in_for_a_validation_are_the_kept_ones(
    tmp_path, points, training, search
):
    class Negated(pl.Callback):
        def flip(self, module):
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.neg_()

        def on_validation_start(self, trainer, module):
            self.flip(module)

        def on_validation_end(self, trainer, module):
            self.flip(module)

    data = points()
    estimator = training(tmp_path, data=data, callbacks=[Negated()])
    study = search(estimator)
    model, (x, y) = estimator.trained(nn.Linear(2, 2), study, study.trials[0]), data.val
    assert (model(x).argmax(1) == y).float().mean().item() == pytest.approx(study.trials[0].value)


def test_a_callback_that_holds_a_lock_and_a_file_works(tmp_path, training, search):
    class Holder(pl.Callback):
        def __init__(self):
            self.lock, self.file, self.seen = threading.Lock(), (tmp_path / "log").open("w"), []

        def on_train_start(self, trainer, module):
            self.seen.append(1)
            self.file.write(f"{len(self.seen)}")
            self.file.flush()

    holder = Holder()
    search(training(tmp_path, callbacks=[holder]), n_trials=2)
    assert (tmp_path / "log").read_text() == "11"
    assert holder.seen == []
    holder.file.close()

import math

import pytest
import pytorch_lightning as pl
import torch
from fixtures.tasks import blobs, fit, no_questions
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torchmetrics import MeanAbsoluteError
from torchmetrics.classification import (
    BinaryAUROC,
    BinaryAveragePrecision,
    MulticlassAccuracy,
    MulticlassAUROC,
)

from optnas.data import TensorData
from optnas.tasks import Classification, MultiLabel, Regression, Supervised
from optnas.tasks.recipe import Recipe
from optnas.trial import Draw


def test_both_learn():
    torch.manual_seed(1)
    assert (
        fit(Classification(3, lr=0.1)(nn.Linear(2, 3), no_questions()), blobs(), epochs=10)["test_acc"] > 0.95
    )
    x = torch.randn(300, 3)
    data = TensorData((x, x.sum(1, keepdim=True)), batch_size=32)
    assert fit(Regression(lr=0.1)(nn.Linear(3, 1), no_questions()), data, epochs=20)["test_r2"] > 0.99


def test_the_learning_rate_is_fixed_asked_or_computed():
    asked = Draw(lambda name, distribution: 0.02)
    assert Classification(2, lr=(1e-3, 1e-1))(nn.Identity(), asked).lr == 0.02
    assert asked.distributions["lr"].log
    assert (asked.distributions["lr"].low, asked.distributions["lr"].high) == (1e-3, 1e-1)
    own = Regression(lr=lambda trial: trial.suggest_float("eta", 0, 1) / 2)
    assert own(nn.Identity(), Draw(lambda name, distribution: 0.5)).lr == 0.25
    assert Classification(2, lr=0.1)(nn.Identity(), no_questions()).lr == 0.1


def test_the_schedule_rises_to_the_learning_rate_and_ends_near_zero():
    rates = []

    class Record(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    module = Classification(3, lr=0.04)(nn.Linear(2, 3), no_questions())
    module.configure_callbacks = lambda: [Record()]
    fit(module, blobs(), epochs=4)
    assert max(rates) == pytest.approx(0.04, rel=0.02)
    assert rates[-1] < 0.04 / 100
    assert rates[0] < 0.04 / 10


@pytest.mark.parametrize("n_steps", [1, 2, 3, 4, 5])
def test_a_training_of_a_few_steps_has_a_schedule(n_steps):
    x, y = torch.randn(n_steps, 2), torch.zeros(n_steps, dtype=torch.long)
    data = TensorData((x, y), val=(x, y), test=(x, y), batch_size=1)
    assert fit(Classification(3)(nn.Linear(2, 3), no_questions()), data)["train_loss"] > 0


def test_only_matrices_are_decayed():
    module = Classification(3, weight_decay=0.3)(
        nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), no_questions()
    )
    fit(module, blobs())
    decay = {
        id(p): group["weight_decay"]
        for group in module.trainer.optimizers[0].param_groups
        for p in group["params"]
    }
    assert [decay[id(p)] for p in module.model.parameters()] == [0.3, 0, 0, 0]


def test_a_range_of_learning_rates_may_be_a_list():
    asked = []
    trial = Draw(lambda name, distribution: asked.append((name, distribution)) or distribution.low)
    assert Classification(2, lr=[1e-3, 1e-1])(nn.Linear(2, 2), trial).lr == 1e-3
    assert [name for name, _ in asked] == ["lr"]


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_rows_of_several_targets_count(batch_size):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Linear(2, 1), nn.Linear(2, 1)

        def forward(self, x):
            return {"a": self.one(x), "b": self.other(x)}

    def loss(output, y):
        return sum(((output[name] - y[name]) ** 2).mean() for name in y)

    x = torch.randn(50, 2)
    y = {"a": x[:, :1], "b": x[:, 1:]}
    model = Two()
    module = Supervised(model, loss, {}, lr=0.0, weight_decay=0.0)
    metrics = fit(module, TensorData((x, y), val=(x, y), test=(x, y), batch_size=batch_size))
    for part in ("train", "val", "test"):
        assert metrics[f"{part}_loss"] == pytest.approx(loss(model(x), y).item(), rel=1e-5)


@pytest.mark.parametrize("batch", [torch.zeros(3, 2), (torch.zeros(3, 2),) * 3, {"x": torch.zeros(3, 2)}])
def test_batches_that_are_no_pairs_are_named(batch):
    module = Regression()(nn.Linear(2, 1), no_questions())
    with pytest.raises(TypeError, match=rf"batches \(inputs, targets\), and got a {type(batch).__name__}"):
        module.training_step(batch, 0)


def test_each_of_several_loaders_has_metrics_of_its_own():
    torch.manual_seed(0)
    splits = [(torch.randn(n, 2), torch.randint(0, 3, (n,))) for n in (50, 30, 21)]
    train, *others = (TensorDataset(*split) for split in splits)
    data = pl.LightningDataModule.from_datasets(train, others, others, batch_size=8)
    model = nn.Linear(2, 3)
    metrics = fit(Classification(3, lr=0.0)(model, no_questions()), data, epochs=2)
    for part in ("val", "test"):
        assert f"{part}_acc" not in metrics
        for i, (x, y) in enumerate(splits[1:]):
            scores = model(x).detach()
            expected = nn.functional.cross_entropy(scores, y).item()
            assert metrics[f"{part}_loss/dataloader_idx_{i}"] == pytest.approx(expected, rel=1e-5)
            accuracy = (scores.argmax(1) == y).float().mean().item()
            assert metrics[f"{part}_acc/dataloader_idx_{i}"] == pytest.approx(accuracy)


def test_a_stream_trains_at_a_constant_rate():
    rates = []

    class Stream(IterableDataset):
        def __iter__(self):
            return iter([(torch.ones(2), torch.tensor(1))] * 40)

    class Record(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    module = Classification(2, lr=0.04)(nn.Linear(2, 2), no_questions())
    module.configure_callbacks = lambda: [Record()]
    loader = DataLoader(Stream(), batch_size=8)
    data = pl.LightningDataModule()
    data.train_dataloader = data.val_dataloader = data.test_dataloader = lambda: loader
    metrics = fit(module, data, epochs=3)
    assert rates == [0.04] * 15
    assert metrics["val_loss"] < 0.6


def test_a_metric_of_ones_own_is_that_of_the_whole_split():
    x = torch.randn(50, 1)
    module = Supervised(nn.Linear(1, 1), nn.functional.mse_loss, {"mae": MeanAbsoluteError()}, 0.0, 0.0)
    metrics = fit(module, TensorData((x, 3 * x), val=(x, 3 * x), test=(x, 3 * x), batch_size=7))
    assert metrics["val_mae"] == pytest.approx((module.model(x) - 3 * x).abs().mean().item(), rel=1e-5)


def test_a_model_with_nothing_to_train_is_told_so():
    frozen = nn.Linear(2, 3).requires_grad_(False)
    for model in (nn.Flatten(), frozen):
        with pytest.raises(ValueError, match="no parameter to train"):
            Recipe().optimizers(nn.Sequential(model), 0.1, 0.0)


@pytest.mark.parametrize("lr", [(0, 1e-2), (1e-1, 1e-3), [1e-3, 3e-3, 1e-2]])
def test_a_range_of_learning_rates_that_is_none_names_the_way_out(lr):
    with pytest.raises(ValueError, match=r"^lr=.*: give a number, the lowest and the highest"):
        Classification(2, lr=lr)(nn.Linear(2, 2), Draw(lambda name, distribution: distribution.low))


def test_a_loss_of_every_row_is_refused():
    module = Regression(nn.MSELoss(reduction="none"))(nn.Linear(2, 1), Draw(None))
    with pytest.raises(ValueError, match=r"The loss has the shape \(4,\), and one number is needed"):
        module.training_step((torch.rand(4, 2), torch.rand(4)), 0)


def test_a_metric_does_not_take_the_place_of_the_loss():
    task = Classification(2, metrics={"loss": MulticlassAccuracy(2)})
    with pytest.raises(ValueError, match="give it another name"):
        task(nn.Linear(2, 2), Draw(None))


class Loaded(pl.LightningDataModule):
    """Rows of these classes, to train and to validate."""

    def __init__(self, y, batch_size=4):
        super().__init__()
        self.rows = TensorDataset(torch.arange(2.0 * len(y)).view(-1, 2) / len(y), y)
        self.batch_size = batch_size

    def train_dataloader(self):
        return DataLoader(self.rows, self.batch_size)

    val_dataloader = test_dataloader = train_dataloader


@pytest.mark.parametrize("metric", [BinaryAUROC(), BinaryAveragePrecision()])
def test_a_curve_over_one_class_is_no_number_and_said_so(metric):
    module = MultiLabel(metrics={"curve": metric})(nn.Linear(2, 1), no_questions())
    with pytest.warns(UserWarning, match=r"(val|test)_curve is not defined, and nan here") as told:
        found = fit(module, Loaded(torch.zeros(12, dtype=torch.long)), epochs=2)
    assert math.isnan(found["val_curve"])
    assert math.isnan(found["test_curve"])
    assert len(told) == 2  # once for each part
    assert 0 <= found["val_acc"] <= 1


def test_a_class_that_validation_lacks_is_told_and_one_that_the_first_batch_lacks_is_not():
    def module():
        return Classification(3, metrics={"auroc": MulticlassAUROC(3)})(nn.Linear(2, 3), no_questions())

    with pytest.warns(UserWarning, match="(val|test)_auroc takes 0 or 1 for that class") as told:
        found = fit(module(), Loaded(torch.arange(12) // 6))
    assert 0 <= found["val_auroc"] < 1  # a number, if not what was meant
    assert len(told) == 2
    fit(module(), Loaded(torch.arange(12) // 4))  # batches are of one class each

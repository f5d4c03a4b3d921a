import pytest
import pytorch_lightning as pl
import torch
from sklearn.metrics import accuracy_score, mean_absolute_error, r2_score
from torch import nn
from torch.nn import functional

from optnas.data import TensorData
from optnas.tasks import Classification, Regression
from optnas.training.quiet import quiet
from optnas.trial import Draw


def fit(module, data, epochs=1):
    with quiet():
        trainer = pl.Trainer(
            max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0,
        )  # fmt: skip
        trainer.fit(module, datamodule=data)
        fitted = {name: float(value) for name, value in trainer.callback_metrics.items()}
        (test,) = trainer.test(module, datamodule=data, verbose=False)
    return fitted | test


def blobs(n=300):
    torch.manual_seed(0)
    y = torch.arange(n) % 3
    return TensorData((torch.randn(n, 2) + 4 * functional.one_hot(y, 3)[:, :2], y), batch_size=32)


def no_questions():
    return Draw(lambda name, distribution: pytest.fail(f"asked {name}"))


def test_classification_metrics_equal_scikit_learns():
    data = blobs()
    model = nn.Linear(2, 3)
    metrics = fit(Classification(3)(model, no_questions()), data, epochs=3)
    for part in ("val", "test"):
        x, y = getattr(data, part)
        scores = model(x).detach()
        assert metrics[f"{part}_acc"] == pytest.approx(accuracy_score(y, scores.argmax(1)))
        assert metrics[f"{part}_loss"] == pytest.approx(functional.cross_entropy(scores, y).item(), rel=1e-5)


def test_regression_metrics_equal_scikit_learns():
    torch.manual_seed(0)
    x = torch.randn(200, 3)
    data = TensorData((x, x @ torch.tensor([1.0, -2.0, 0.5])), batch_size=32)
    model = nn.Linear(3, 1)
    metrics = fit(Regression()(model, no_questions()), data, epochs=3)
    for part in ("val", "test"):
        x, y = getattr(data, part)
        output = model(x).detach().squeeze(1)
        assert metrics[f"{part}_mae"] == pytest.approx(mean_absolute_error(y, output), rel=1e-5)
        assert metrics[f"{part}_r2"] == pytest.approx(r2_score(y, output), rel=1e-4)
        assert metrics[f"{part}_loss"] == pytest.approx(functional.mse_loss(output, y).item(), rel=1e-5)


def test_both_learn():
    torch.manual_seed(1)
    assert (
        fit(Classification(3, lr=0.1)(nn.Linear(2, 3), no_questions()), blobs(), epochs=10)["test_acc"] > 0.95
    )
    x = torch.randn(300, 3)
    data = TensorData((x, x.sum(1, keepdim=True)), batch_size=32)
    assert fit(Regression(lr=0.1)(nn.Linear(3, 1), no_questions()), data, epochs=20)["test_r2"] > 0.99


def test_dense_labels_and_several_inputs():
    class Add(nn.Module):
        def forward(self, left, right):
            return torch.stack([left, right], 1)

    class Trained(Add):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, left, right):
            return self.scale * super().forward(left, right)

    left, right = torch.rand(50, 4), torch.rand(50, 4)
    y = (right > left).long()  # (n, 4): the larger of two scores
    for x in ((left, right), {"left": left, "right": right}):
        metrics = fit(Classification(2)(Trained(), no_questions()), TensorData((x, y), batch_size=16))
        assert metrics["test_acc"] == 1


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


def test_label_smoothing_changes_the_loss_as_defined():
    scores, y = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    logs = torch.log_softmax(scores, 1)
    share = 0.9 * functional.one_hot(y, 3) + 0.1 / 3
    module = Classification(3, label_smoothing=0.1)(nn.Identity(), no_questions())
    assert module.loss(scores, y).item() == pytest.approx(-(share * logs).sum(1).mean().item(), rel=1e-5)


@pytest.mark.parametrize("kind", [torch.int8, torch.int32, torch.uint8, torch.bool])
def test_labels_may_be_integers_of_any_width(kind):
    x, y = torch.randn(60, 2), torch.arange(60) % 2
    results = []
    for labels in (y, y.to(kind)):
        torch.manual_seed(0)
        data = TensorData((x, labels), val=(x, labels), test=(x, labels))
        results.append(fit(Classification(2)(nn.Linear(2, 2), no_questions()), data))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("scores", "labels", "named"),
    [
        (torch.zeros(5, 1), torch.zeros(5).long(), r"returned \(5, 1\)"),
        (torch.zeros(5, 4), torch.zeros(5).long(), r"returned \(5, 4\)"),
        (torch.zeros(5), torch.zeros(5).long(), r"returned \(5,\)"),
        (torch.zeros(5, 3), torch.zeros(5, 1).long(), r"labels are \(5, 1\)"),
        (torch.zeros(5, 3), torch.zeros(5), "torch.float32"),
        (torch.zeros(5, 3), torch.tensor([1, 2, 3, 1, 2]), r"labels are 1\.\.3"),
    ],
)
def test_scores_and_labels_that_do_not_fit_are_named(scores, labels, named):
    module = Classification(3)(nn.Identity(), no_questions())
    with pytest.raises(ValueError, match=rf"n_classes=3.*0\.\.2.*{named}"):
        module.validation_step((scores, labels), 0)


def test_outputs_and_targets_pair_up_whichever_has_the_extra_dimension():
    outputs, targets = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 3.0, 2.0])
    for output, y in ((outputs, targets[:, None]), (outputs[:, None], targets), (outputs, targets)):
        module = Regression()(nn.Identity(), no_questions())
        assert module.training_step((output, y), 0).item() == pytest.approx(5 / 3)


def test_outputs_that_would_be_broadcast_to_the_targets_are_refused():
    module = Regression()(nn.Identity(), no_questions())
    with pytest.raises(ValueError, match=r"returned \(3, 3\), and the targets are \(3,\)"):
        module.training_step((torch.zeros(3, 3), torch.zeros(3)), 0)


def test_a_range_of_learning_rates_may_be_a_list():
    asked = []
    trial = Draw(lambda name, distribution: asked.append((name, distribution)) or distribution.low)
    assert Classification(2, lr=[1e-3, 1e-1])(nn.Linear(2, 2), trial).lr == 1e-3
    assert [name for name, _ in asked] == ["lr"]

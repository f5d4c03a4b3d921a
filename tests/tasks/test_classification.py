import copy
from functools import partial

import pytest
import torch
from fixtures.tasks import blobs, fit, no_questions
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from torch import nn
from torch.nn import functional
from torchmetrics.classification import MulticlassAUROC, MulticlassF1Score

from optnas.data import TensorData, random_mixup
from optnas.tasks import Classification


def test_classification_metrics_equal_scikit_learns():
    data = blobs()
    model = nn.Linear(2, 3)
    metrics = fit(Classification(3)(model, no_questions()), data, epochs=3)
    for part in ("val", "test"):
        x, y = getattr(data, part)
        scores = model(x).detach()
        assert metrics[f"{part}_acc"] == pytest.approx(accuracy_score(y, scores.argmax(1)))
        assert metrics[f"{part}_loss"] == pytest.approx(functional.cross_entropy(scores, y).item(), rel=1e-5)


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


@pytest.mark.parametrize("batch_size", [1, 3, 7, 16, 64, 1000])
@pytest.mark.parametrize("ignored", [-100, 0, 255])
@pytest.mark.parametrize("shape", [(), (5,), (3, 4)])
def test_scores_are_those_of_the_whole_split_at_once_without_what_is_ignored(batch_size, ignored, shape):
    n = 50
    x, y = torch.randn(n, 2, *shape), torch.randint(0, 3, (n, *shape))
    y[torch.rand(y.shape) < 0.4] = ignored
    y[:8] = ignored  # whole batches of it
    model = nn.Conv2d(2, 3, 1) if len(shape) == 2 else nn.Conv1d(2, 3, 1) if shape else nn.Linear(2, 3)
    task = Classification(3, lr=0.0, ignore_index=ignored, label_smoothing=0.1)
    data = TensorData((x, y), val=(x, y), test=(x, y), batch_size=batch_size)
    metrics = fit(task(model, no_questions()), data)
    scores = model(x).detach()
    loss = functional.cross_entropy(scores, y, ignore_index=ignored, label_smoothing=0.1).item()
    counted = y != ignored
    accuracy = accuracy_score(y[counted], scores.argmax(1)[counted])
    for part in ("val", "test"):
        assert metrics[f"{part}_loss"] == pytest.approx(loss, rel=1e-5)
        assert metrics[f"{part}_acc"] == pytest.approx(accuracy)
    assert metrics["train_loss"] == pytest.approx(loss, rel=1e-5)


def test_a_batch_of_ignored_labels_alone_does_not_spoil_the_training():
    x, y = torch.randn(40, 2), torch.full((40,), -100)
    y[-1] = 1
    model = nn.Linear(2, 2)
    fit(Classification(2)(model, no_questions()), TensorData((x, y), val=(x, y), test=(x, y), batch_size=4))
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_where_no_label_counts_the_scores_are_not_numbers():
    x, y = torch.randn(10, 2), torch.full((10,), -100)
    data = TensorData((x, torch.ones(10).long()), val=(x, y), test=(x, y))
    metrics = fit(Classification(2)(nn.Linear(2, 2), no_questions()), data)
    assert metrics["val_loss"] != metrics["val_loss"]
    assert metrics["val_acc"] != metrics["val_acc"]


@pytest.mark.parametrize("output", [(1, torch.zeros(5, 3)), {"a": torch.zeros(5, 3), "b": torch.zeros(5, 3)}])
def test_several_outputs_are_named(output):
    class Several(nn.Module):
        def forward(self, x):
            return output

    module = Classification(3)(Several(), no_questions())
    with pytest.raises(ValueError, match=f"the model returned a {type(output).__name__}"):
        module.validation_step((torch.zeros(5, 3), torch.zeros(5).long()), 0)


def test_narrow_labels_may_be_ignored():
    scores, y = torch.randn(6, 3), torch.tensor([0, 1, 255, 2, 255, 0], dtype=torch.uint8)
    module = Classification(3, ignore_index=255)(nn.Identity(), no_questions())
    expected = functional.cross_entropy(scores, y.long(), ignore_index=255)
    assert module.training_step((scores, y), 0).item() == pytest.approx(expected.item(), rel=1e-5)


def test_class_weights_and_all_metrics_leave_out_what_is_ignored():
    torch.manual_seed(0)
    x, y = torch.randn(60, 4), torch.randint(0, 3, (60,))
    y[::7] = -100
    weights = [1.0, 2.0, 0.5]
    task = Classification(
        3,
        class_weights=weights,
        metrics={"f1": MulticlassF1Score(3, average="macro"), "auroc": MulticlassAUROC(3)},
    )
    data = TensorData((x, y.clamp(min=0)), val=(x, y), test=(x, y), batch_size=7)
    model = nn.Linear(4, 3)
    metrics = fit(task(model, no_questions()), data)
    counted = y >= 0
    with torch.no_grad():
        scores = model(x)[counted]
    expected = functional.cross_entropy(scores, y[counted], torch.tensor(weights))
    assert metrics["val_loss"] == pytest.approx(expected.item(), rel=1e-4)
    assert metrics["val_f1"] == pytest.approx(
        f1_score(y[counted], scores.argmax(1), average="macro"), rel=1e-4
    )
    assert metrics["test_auroc"] == pytest.approx(
        roc_auc_score(y[counted], scores.softmax(1), multi_class="ovr"), rel=1e-4
    )
    with pytest.raises(ValueError, match=r"class_weights.*give 3 numbers"):
        Classification(3, class_weights=[1, 2])


def test_scores_with_the_classes_last():
    scores, y = torch.randn(2, 5, 3), torch.randint(0, 3, (2, 5))
    module = Classification(3, classes_last=True)(nn.Identity(), no_questions())
    expected = functional.cross_entropy(scores.reshape(-1, 3), y.reshape(-1))
    assert module.training_step((scores, y), 0).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("shape", [(), (5,), (3, 4)])
@pytest.mark.parametrize("ignored", [-100, 1])
def test_shares_of_one_class_are_that_label_for_loss_and_metrics(shape, ignored):
    torch.manual_seed(0)
    x, y = torch.randn(40, 2, *shape), torch.randint(0, 3, (40, *shape))
    y[torch.rand(y.shape) < 0.3] = ignored
    shares = (functional.one_hot(y.clamp(min=0), 3) * (y >= 0).unsqueeze(-1)).movedim(-1, 1).float()
    weights = torch.rand(3) + 0.5
    task = Classification(
        3, label_smoothing=0.1, ignore_index=ignored, class_weights=weights.tolist(),
        metrics={"f1": MulticlassF1Score(3, average="macro")},
    )  # fmt: skip
    model = nn.Conv2d(2, 3, 1) if len(shape) == 2 else nn.Conv1d(2, 3, 1) if shape else nn.Linear(2, 3)
    found = []
    for targets in (y, shares):
        torch.manual_seed(0)
        split = (x, targets)
        data = TensorData(split, val=split, test=split, batch_size=7)
        found.append(fit(task(copy.deepcopy(model), no_questions()), data, epochs=2))
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_mixed_labels_have_the_loss_by_definition():
    scores, shares = torch.randn(6, 3), torch.rand(6, 3).softmax(1)
    module = Classification(3, label_smoothing=0.2)(nn.Identity(), no_questions())
    expected = functional.cross_entropy(scores, shares, label_smoothing=0.2)  # torch's own of probabilities
    assert module.training_step((scores, shares), 0).item() == pytest.approx(expected.item(), rel=1e-5)
    # A row that is half ignored counts by half.
    half = shares * torch.tensor([0.5, 1, 1, 1, 1, 1]).view(6, 1)
    each = functional.cross_entropy(scores, shares, reduction="none")
    plain = Classification(3)(nn.Identity(), no_questions())
    by_hand = (0.5 * each[0] + each[1:].sum()) / 5.5
    assert plain.training_step((scores, half), 0).item() == pytest.approx(by_hand.item(), rel=1e-5)


@pytest.mark.parametrize("shares", [torch.full((5, 3), 0.5), torch.tensor([[-0.2, 0.6, 0.6]] * 5)])
def test_what_are_no_shares_is_refused(shares):
    module = Classification(3)(nn.Identity(), no_questions())
    with pytest.raises(ValueError, match=r"at least 0 that sum to at most 1.*shares of"):
        module.training_step((torch.zeros(5, 3), shares), 0)


def test_a_training_on_mixed_labels_learns():
    data = blobs()
    data.mix = partial(random_mixup, n_classes=3, alpha=1.0)
    metrics = fit(Classification(3, lr=0.05)(nn.Linear(2, 3), no_questions()), data, epochs=20)
    assert metrics["val_acc"] > 0.9


@pytest.mark.parametrize("classes", [2, 5])
def test_probabilities_instead_of_scores_are_told_and_scores_are_not(classes):
    x, y = torch.randn(40, 3), torch.arange(40) % classes
    module = Classification(classes)(nn.Linear(3, classes), no_questions())
    module.pair(module(x), y)  # a warning would be an error here
    for end in (nn.Softmax(1), nn.LogSoftmax(1)):
        module = Classification(classes)(nn.Sequential(nn.Linear(3, classes), end), no_questions())
        if isinstance(end, nn.Softmax):
            with pytest.warns(UserWarning, match="Leave out the softmax"):
                module.pair(module(x), y)
        module.pair(
            module(x), y
        )  # said once, and nothing of a logarithm, which a second softmax leaves as it is

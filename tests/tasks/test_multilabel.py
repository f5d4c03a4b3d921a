import pytest
import torch
from fixtures.tasks import fit, no_questions
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional
from torchmetrics.classification import BinaryAUROC, MultilabelF1Score

from optnas.data import TensorData
from optnas.tasks import MultiLabel

torch.manual_seed(0)
X = torch.randn(50, 3)


@pytest.mark.parametrize("columns", [True, False])
def test_binary(columns):
    y = (X[:, 0] > 0).float()
    data = TensorData((X, y.unsqueeze(1) if columns else y), val=(X, y), test=(X, y), batch_size=7)
    model = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0) if not columns else nn.Identity())
    metrics = fit(MultiLabel(metrics={"auroc": BinaryAUROC()})(model, no_questions()), data, epochs=3)
    with torch.no_grad():
        scores = model(X).reshape(-1)
    assert metrics["val_loss"] == pytest.approx(
        functional.binary_cross_entropy_with_logits(scores, y).item(), rel=1e-4
    )
    assert metrics["val_acc"] == pytest.approx(((scores > 0) == y.bool()).float().mean().item())
    assert metrics["test_auroc"] == pytest.approx(roc_auc_score(y, scores), rel=1e-5)


def test_several_labels_of_which_some_do_not_count():
    y = (X[:, :2] > 0).long()
    y[::3, 0] = -100
    data = TensorData((X, y), val=(X, y), test=(X, y), batch_size=7)
    task = MultiLabel(2, positive_weights=[1.0, 3.0], metrics={"f1": MultilabelF1Score(2, ignore_index=-100)})
    model = nn.Linear(3, 2)
    metrics = fit(task(model, no_questions()), data)
    counted = y >= 0
    with torch.no_grad():
        scores = model(X)
    each = functional.binary_cross_entropy_with_logits(
        scores, y.clamp(min=0).float(), pos_weight=torch.tensor([1.0, 3.0]), reduction="none"
    )
    assert metrics["val_loss"] == pytest.approx(each[counted].mean().item(), rel=1e-4)
    assert metrics["val_acc"] == pytest.approx(((scores > 0) == y.bool())[counted].float().mean().item())
    assert 0 < metrics["val_f1"] <= 1


def test_shares_of_labels_are_the_nearer_one_to_metrics():
    y = (X[:, :1] > 0).float() * 0.9
    data = TensorData((X, y), val=(X, y), batch_size=10)
    metrics = fit(MultiLabel(lr=0.1)(nn.Linear(3, 1), no_questions()), data, epochs=9)
    assert metrics["val_acc"] > 0.6  # all labels are 0 where 0.9 is cut to 0


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match=r"takes \(50, 2\); the model returned \(50, 3\)"):
        MultiLabel(2)(nn.Identity(), no_questions()).training_step((X, X[:, :2]), 0)
    for output, y in ((X, X), (X[:, :1], X), (X, X[:, 0])):  # one of three columns is not meant
        with pytest.raises(ValueError, match=r"MultiLabel\(n_labels=1\) takes \(50,\); the .* \(50, 3\)"):
            MultiLabel()(nn.Identity(), no_questions()).training_step((output, y), 0)
    for label in (-1, 2):
        y = torch.where(X[:, 0] > 0, label, 0)
        y[0] = -100
        with pytest.raises(ValueError, match=rf"targets of 0 and 1, or -100 .*; these are .*{label}"):
            MultiLabel()(nn.Identity(), no_questions()).training_step((X[:, 0], y), 0)
    with pytest.raises(ValueError, match="give 2 numbers"):
        MultiLabel(2, positive_weights=[1.0])

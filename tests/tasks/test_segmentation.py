import pytest
import torch
from fixtures.tasks import fit, no_questions
from sklearn.metrics import f1_score, jaccard_score
from torch import nn
from torch.nn import functional

from optnas.data import TensorData
from optnas.tasks import Segmentation

torch.manual_seed(0)
X = torch.randn(12, 2, 4, 5)
Y = torch.randint(0, 3, (12, 4, 5))
Y[:, 0] = -100


def test_overlaps_are_those_of_all_pixels_that_count():
    model = nn.Conv2d(2, 3, 1)
    data = TensorData((X, Y), val=(X, Y), test=(X, Y), batch_size=5)
    metrics = fit(Segmentation(3)(model, no_questions()), data, epochs=2)
    counted = Y >= 0
    with torch.no_grad():
        found = model(X).argmax(1)[counted]
    assert metrics["val_iou"] == pytest.approx(jaccard_score(Y[counted], found, average="macro"), rel=1e-4)
    assert metrics["test_dice"] == pytest.approx(f1_score(Y[counted], found, average="macro"), rel=1e-4)


def test_the_loss_is_cross_entropy_and_dice_by_their_shares():
    def loss(share):
        step = Segmentation(3, dice=share)(nn.Identity(), no_questions()).training_step
        return step((torch.cat([X, X[:, :1]], 1), Y), 0).item()

    scores = torch.cat([X, X[:, :1]], 1)
    assert loss(0.0) == pytest.approx(functional.cross_entropy(scores, Y, ignore_index=-100).item(), rel=1e-5)
    counted = Y >= 0
    found = scores.softmax(1).movedim(1, -1)[counted]
    wanted = functional.one_hot(Y[counted], 3)
    dice = 1 - (2 * (found * wanted).sum(0) / (found.sum(0) + wanted.sum(0))).mean().item()
    assert loss(1.0) == pytest.approx(dice, rel=1e-5)
    assert loss(0.25) == pytest.approx(0.75 * loss(0.0) + 0.25 * dice, rel=1e-5)


def test_volumes_and_what_is_perfect():
    y = torch.randint(0, 2, (3, 4, 4, 4))
    scores = 100.0 * functional.one_hot(y, 2).movedim(-1, 1)
    step = Segmentation(2)(nn.Identity(), no_questions()).training_step
    assert step((scores, y), 0).item() == pytest.approx(0, abs=1e-6)


def test_shares_of_one_class_are_that_label():
    scores = torch.cat([X, X[:, :1]], 1)
    shares = (functional.one_hot(Y.clamp(min=0), 3) * (Y >= 0).unsqueeze(-1)).movedim(-1, 1).float()
    step = Segmentation(3)(nn.Identity(), no_questions()).training_step
    assert step((scores, shares), 0).item() == pytest.approx(step((scores, Y), 0).item(), rel=1e-5)

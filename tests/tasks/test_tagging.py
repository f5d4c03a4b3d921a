import pytest
import torch
from fixtures.tasks import fit, no_questions
from sklearn.metrics import f1_score
from torch import nn

from optnas.data import TensorData
from optnas.tasks import Tagging


def test_padding_counts_nowhere():
    torch.manual_seed(0)
    x = torch.randint(0, 9, (20, 7))
    y = x % 3
    y[:, 5:] = -100
    model = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 3))
    data = TensorData((x, y), val=(x, y), test=(x, y), batch_size=6)
    metrics = fit(Tagging(3, lr=0.05)(model, no_questions()), data, epochs=2)
    counted = y >= 0
    found = model(x).argmax(-1)[counted]
    assert metrics["val_f1"] == pytest.approx(f1_score(y[counted], found, average="macro"), rel=1e-4)
    assert metrics["val_acc"] == pytest.approx((found == y[counted]).float().mean().item())

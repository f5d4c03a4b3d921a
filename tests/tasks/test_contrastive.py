import math

import pytest
import torch
from fixtures.tasks import fit, no_questions
from torch import nn

from optnas.data import TensorData
from optnas.tasks import Contrastive, Siamese

torch.manual_seed(0)
A = torch.randn(30, 4)
B = A + 0.01 * torch.randn(30, 4)


def test_views_are_told_from_all_others_of_the_batch():
    step = Contrastive(0.2)(nn.Identity(), no_questions()).training_step
    views = [v / v.norm() for v in (*A[:3], *B[:3])]
    total = 0.0
    for i, view in enumerate(views):
        alike = [math.exp(float(view @ other) / 0.2) for other in views]
        total -= math.log(alike[(i + 3) % 6] / (sum(alike) - alike[i]))
    assert step(((A[:3], B[:3]), torch.zeros(3)), 0).item() == pytest.approx(total / 6, rel=1e-4)


def test_contrastive_learns_to_find_the_other_view():
    split = ((A, B), torch.zeros(30))
    data = TensorData(split, val=split, test=split, batch_size=10)
    metrics = fit(Contrastive()(nn.Linear(4, 4), no_questions()), data)
    assert metrics["val_acc"] > 0.9


def test_siamese_pairs():
    step = Siamese(margin=2.0)(nn.Identity(), no_questions()).training_step
    one, other = torch.tensor([[0.0], [0.0], [0.0]]), torch.tensor([[1.0], [1.5], [9.0]])
    same = torch.tensor([1, 0, 0])
    assert step(((one, other), same), 0).item() == pytest.approx((1.0 + 0.25 + 0.0) / 3, rel=1e-4)
    x = torch.cat([A, A]), torch.cat([B, B.roll(1, 0)])
    y = torch.cat([torch.ones(30), torch.zeros(30)])
    data = TensorData((x, y), val=(x, y), test=(x, y), batch_size=10)
    assert fit(Siamese()(nn.Linear(4, 4), no_questions()), data, epochs=5)["val_acc"] > 0.85


def test_one_input_is_no_pair():
    with pytest.raises(TypeError, match="a batch must be"):
        Siamese()(nn.Identity(), no_questions()).training_step((A, A), 0)

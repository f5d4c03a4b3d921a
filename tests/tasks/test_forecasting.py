import numpy as np
import pytest
import torch
from fixtures.tasks import fit, no_questions
from sklearn.metrics import mean_pinball_loss
from torch import nn

from optnas.data import TensorData
from optnas.tasks import Forecasting

torch.manual_seed(0)
PAST, FUTURE = torch.randn(20, 12).cumsum(1), torch.randn(20, 3)
DATA = TensorData((PAST, FUTURE), val=(PAST, FUTURE), test=(PAST, FUTURE), batch_size=6)


@pytest.mark.parametrize("season", [1, 4])
def test_mase_is_that_of_the_paper(season):
    model = nn.Linear(12, 3)
    metrics = fit(Forecasting(season=season)(model, no_questions()), DATA)
    with torch.no_grad():
        errors = (model(PAST) - FUTURE).abs().numpy()
    past = PAST.numpy()
    naive = np.abs(past[:, season:] - past[:, :-season]).mean(1)
    assert metrics["val_loss"] == pytest.approx(errors.mean(), rel=1e-4)
    assert metrics["val_mae"] == pytest.approx(errors.mean(), rel=1e-4)
    assert metrics["test_mase"] == pytest.approx((errors.mean(1) / naive).mean(), rel=1e-4)


def test_series_that_stay_as_they_are_do_not_count_in_mase():
    past = PAST.clone()
    past[:10] = 5.0
    data = TensorData((past, FUTURE), val=(past, FUTURE), test=(past, FUTURE), batch_size=6)
    model = nn.Linear(12, 3)
    metrics = fit(Forecasting()(model, no_questions()), data)
    with torch.no_grad():
        errors = (model(past) - FUTURE).abs().mean(1)[10:]
    assert metrics["val_mase"] == pytest.approx(
        (errors / past.diff(dim=1).abs().mean(1)[10:]).mean().item(), rel=1e-4
    )


def test_quantiles():
    levels = (0.1, 0.6, 0.9)
    model = nn.Sequential(nn.Linear(12, 9), nn.Unflatten(1, (3, 3)))
    metrics = fit(Forecasting(levels)(model, no_questions()), DATA)
    with torch.no_grad():
        found = model(PAST)
    pinball = [
        mean_pinball_loss(FUTURE.reshape(-1), found[..., i].reshape(-1), alpha=q)
        for i, q in enumerate(levels)
    ]
    assert metrics["val_loss"] == pytest.approx(np.mean(pinball), rel=1e-4)
    assert metrics["val_mae"] == pytest.approx((found[..., 1] - FUTURE).abs().mean().item(), rel=1e-4)
    inside = (found[..., 0] <= FUTURE) & (found[..., 2] >= FUTURE)
    assert metrics["val_coverage"] == pytest.approx(inside.float().mean().item())


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match=r"takes outputs \(20, 3\); the model returned \(20, 2\)"):
        Forecasting()(nn.Linear(12, 2), no_questions()).training_step((PAST, FUTURE), 0)
    with pytest.raises(ValueError, match="season=12 is not within the 12 steps"):
        Forecasting(season=12)(nn.Linear(12, 3), no_questions()).training_step((PAST, FUTURE), 0)
    with pytest.raises(ValueError, match="quantiles rise"):
        Forecasting((0.9, 0.1))

import pytest
import torch
from fixtures.tasks import fit, no_questions
from sklearn.metrics import mean_absolute_error, r2_score
from torch import nn
from torch.nn import functional

from optnas.data import TensorData
from optnas.tasks import Regression


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


def test_outputs_and_targets_pair_up_whichever_has_the_extra_dimension():
    outputs, targets = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 3.0, 2.0])
    for output, y in ((outputs, targets[:, None]), (outputs[:, None], targets), (outputs, targets)):
        module = Regression()(nn.Identity(), no_questions())
        assert module.training_step((output, y), 0).item() == pytest.approx(5 / 3)


def test_outputs_that_would_be_broadcast_to_the_targets_are_refused():
    module = Regression()(nn.Identity(), no_questions())
    with pytest.raises(ValueError, match=r"returned \(3, 3\), and the targets are \(3,\)"):
        module.training_step((torch.zeros(3, 3), torch.zeros(3)), 0)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 16, 64, 1000])
@pytest.mark.parametrize("shape", [(), (1,), (4,), (1, 6), (2, 3, 4)])
def test_scores_are_those_of_the_whole_split_at_once(batch_size, shape):
    x = torch.randn(50, *shape)
    y = x * 2 + torch.randn(x.shape)
    model = nn.Linear(shape[-1], shape[-1]) if shape else nn.Linear(1, 1)
    inputs = x if shape else x[:, None]
    data = TensorData((inputs, y), val=(inputs, y), test=(inputs, y), batch_size=batch_size)
    metrics = fit(Regression(lr=0.0)(model, no_questions()), data)
    output = model(inputs).detach().reshape(y.shape)
    flat = [part.reshape(-1) if y.ndim > 2 else part for part in (y, output)]
    for part in ("val", "test"):
        assert metrics[f"{part}_loss"] == pytest.approx(functional.mse_loss(output, y).item(), rel=1e-5)
        assert metrics[f"{part}_mae"] == pytest.approx((output - y).abs().mean().item(), rel=1e-5)
        assert metrics[f"{part}_r2"] == pytest.approx(r2_score(*flat), rel=1e-4, abs=1e-5)


def test_sequences_of_several_lengths_count_by_their_elements():
    batches = [(torch.randn(4, length), torch.randn(4, length)) for length in (3, 9)]
    module = Regression()(nn.Identity(), no_questions())
    module.on_validation_epoch_start()
    for batch in batches:
        module._loss.add(*module.score(*batch))
    errors = torch.cat([(x - y).reshape(-1) for x, y in batches])
    assert float(module._loss.value) == pytest.approx(errors.square().mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("x", "y", "named"),
    [((1, 2), torch.zeros(3), "model returned a tuple"), (torch.zeros(3), {"a": 1}, "targets are a dict")],
)
def test_several_outputs_or_targets_are_named(x, y, named):
    class Several(nn.Module):
        def forward(self, *x):
            return x if len(x) > 1 else x[0]

    module = Regression()(Several(), no_questions())
    with pytest.raises(TypeError, match=named):
        module.training_step((x, y), 0)

import pytest
import pytorch_lightning as pl
import torch
from fixtures.tasks import fit, no_questions
from torch import nn
from torch.nn import functional
from torch.utils.data import StackDataset

from optnas.tasks import OwnLoss

X, Y = torch.randn(20, 3), torch.randint(0, 2, (20,))


class Model(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.layer, self.wrap = nn.Linear(3, 2), wrap

    def forward(self, x, labels):
        scores = self.layer(x)
        return self.wrap(functional.cross_entropy(scores, labels), scores)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda loss, scores: loss,
        lambda loss, scores: (loss, scores),
        lambda loss, scores: {"loss": loss, "logits": scores},
        lambda loss, scores: {"a": loss / 4, "b": 3 * loss / 4},
    ],
)
def test_the_loss_is_found(wrap):
    model = Model(wrap)
    step = OwnLoss()(model, no_questions()).training_step
    expected = functional.cross_entropy(model.layer(X), Y).item()
    assert step({"x": X, "labels": Y}, 0).item() == pytest.approx(expected, rel=1e-5)
    assert step((X, Y), 0).item() == pytest.approx(expected, rel=1e-5)


def test_it_trains_and_says_where_there_is_none():
    rows = StackDataset(x=X, labels=Y)
    data = pl.LightningDataModule.from_datasets(rows, rows, rows, batch_size=6, num_workers=0)
    model = Model(lambda loss, scores: {"loss": loss})
    metrics = fit(OwnLoss()(model, no_questions()), data)
    assert metrics["val_loss"] == pytest.approx(functional.cross_entropy(model.layer(X), Y).item(), rel=1e-4)
    with pytest.raises(ValueError, match="returned a int, in which there is no loss"):
        OwnLoss()(Model(lambda loss, scores: 3), no_questions()).training_step((X, Y), 0)

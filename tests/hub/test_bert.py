import pytest
import torch
from fixtures.hub import learns, n_params, tokens

from optnas.hub import bert
from optnas.testing import check_space
from optnas.trial import replay

# As Hugging Face counts bert-base-uncased and so on, with the pooling layer.
PUBLISHED = {
    "TINY": 4_385_920,
    "MINI": 11_170_560,
    "SMALL": 28_763_648,
    "MEDIUM": 41_373_184,
    "BASE": 109_482_240,
    "LARGE": 335_141_888,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_networks_are_members_of_the_published_size(name: str) -> None:
    assert n_params(bert.network, getattr(bert, name), tokens(1, 3)) == PUBLISHED[name]


def small(trial):
    return bert.network(
        trial, vocabulary=9, length=8, heads=(1, 2), depth=(1, 2), head_width=4, classes=3, dropout=0.1
    )


def test_padding_has_no_influence() -> None:
    model = small(replay({"heads": 2, "expansion": 2.0, "depth": 2}))
    short = torch.tensor([[3, 4, 5]])
    model.eval()(short)
    padded = torch.tensor([[3, 4, 5, 0, 0]])
    torch.testing.assert_close(model(short), model(padded))
    assert not torch.isclose(model(short), model(torch.tensor([[3, 4, 6]]))).all()
    assert model(torch.zeros(2, 4).long()).isfinite().all()
    assert not torch.isclose(model(short), model(short, torch.tensor([[0, 1, 1]]))).all()


def test_it_is_a_space_whose_networks_learn() -> None:
    check_space(small, tokens(2, 6), n_samples=2)
    learns(small(replay({"heads": 2, "expansion": 2.0, "depth": 2})), tokens(4, 6))

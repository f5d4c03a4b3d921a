import pytest
import torch
from fixtures.hub import learns, n_params, tokens

from optnas.hub import gpt
from optnas.testing import check_space
from optnas.trial import replay

# As counted by Hugging Face and nanoGPT, the tied embedding once.
PUBLISHED = {
    "GPT2_SMALL": 124_439_808,
    "GPT2_MEDIUM": 354_823_168,
    "GPT2_LARGE": 774_030_080,
    "GPT2_XL": 1_557_611_200,
}
SMALL = {"vocabulary": 9, "length": 8, "heads": (1, 2), "depth": (1, 2), "head_width": (4, 6)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_networks_are_members_of_the_published_size(name: str) -> None:
    assert n_params(gpt.network, getattr(gpt, name), tokens(1, 3)) == PUBLISHED[name]


@pytest.mark.parametrize("name", gpt.CHINCHILLA)
def test_chinchilla_counts_a_projection_of_relative_positions_more(name: str) -> None:
    params = gpt.CHINCHILLA[name]
    ours = n_params(gpt.network, params, tokens(1, 3), vocabulary=32_000)
    width = params["heads"] * params["head_width"]
    assert f"{round((ours + params['depth'] * width**2) / 1e6)}M" == name


@pytest.mark.parametrize("positions", ["learned", "rotary", "relative"])
def test_nothing_reads_the_future(positions: str) -> None:
    params = gpt.params_of(2, 2, head_width=4, positions=positions)
    model = gpt.network(replay(params), vocabulary=9, length=8, head_width=4)
    first = tokens(1, 8)
    second = torch.cat([first[:, :5], (first[:, 5:] + 1) % 9], 1)
    before, after = model(first), model(second)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.isclose(before[:, 5:], after[:, 5:]).all(-1).any()


def test_it_is_a_space_whose_networks_learn() -> None:
    check_space(lambda trial: gpt.network(trial, **SMALL), tokens(2, 6), n_samples=2)
    model = gpt.network(replay(gpt.params_of(2, 2)), vocabulary=9, length=8, dropout=0.1)
    learns(model, tokens(2, 8))

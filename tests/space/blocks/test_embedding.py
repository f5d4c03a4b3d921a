"""Patches, tokens, positions."""

import math

import pytest
import torch
from torch.nn import functional

from optnas.space.blocks import PatchEmbedding, TokenEmbedding, patch_embedding, token_embedding
from optnas.space.blocks.embedding import SinusoidalPositions
from optnas.testing import check_space


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_patches_are_projected_linearly_and_sizes_padded(dims: int) -> None:
    model = PatchEmbedding(6, 3, positions=None, dims=dims)
    x = torch.randn(2, 4, *[7] * dims)
    y = model(x)
    assert y.shape == (2, 3**dims, 6)
    padded = functional.pad(x, (0, 2) * dims)
    last = padded[:, :, *[slice(6, 9)] * dims].flatten(1)
    torch.testing.assert_close(y[:, -1], last @ model.project.weight.flatten(1).T + model.project.bias)


def test_a_class_token_comes_first_and_positions_are_added() -> None:
    model = PatchEmbedding(6, 2, class_token=True)
    x = torch.randn(2, 1, 4, 4)
    model(x)
    with torch.no_grad():
        model.class_token.fill_(3.0)
    y = model(x) - model.positions.vectors
    assert y.shape == (2, 5, 6)
    torch.testing.assert_close(y[:, 0], torch.full((2, 6), 3.0))
    with pytest.raises(ValueError, match=r"length of 5, the input has 10.*sinusoidal"):
        model(torch.randn(2, 1, 6, 6))


def test_tokens_have_vectors_and_positions() -> None:
    model = TokenEmbedding(11, 6, max_length=8, padding=0)
    tokens = torch.tensor([[3, 3, 0]])
    y = model(tokens)
    torch.testing.assert_close(y[0, 2], model.positions.vectors[2])
    torch.testing.assert_close(y[0, 0] - y[0, 1], model.positions.vectors[0] - model.positions.vectors[1])
    with pytest.raises(ValueError, match="length of 8, the input has 9"):
        model(torch.zeros(1, 9, dtype=torch.long))


@pytest.mark.parametrize("width", [1, 5, 8])
def test_sinusoids_are_those_of_the_paper(width: int) -> None:
    y = SinusoidalPositions()(torch.zeros(1, 50, width))[0]
    for position in (0, 1, 17, 49):
        for i in range(width):
            angle = position / 10_000 ** (2 * (i // 2) / width)
            expected = math.cos(angle) if i % 2 else math.sin(angle)
            assert y[position, i].item() == pytest.approx(expected, abs=1e-5)


def test_both_are_spaces() -> None:
    def patches(trial):
        kinds = ("learned", "sinusoidal", None)
        return patch_embedding(trial, patch=(2, 3), class_token=(False, True), positions=kinds)

    check_space(patches, (2, 3, 7, 8))
    check_space(
        lambda trial: token_embedding(trial, vocabulary=7, dropout=(0.0, 0.1)), torch.zeros(2, 5).long()
    )
    with pytest.raises(ValueError, match="positions='rotary' is unknown"):
        PatchEmbedding(4, 2, positions="rotary")

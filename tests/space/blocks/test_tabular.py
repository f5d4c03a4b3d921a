"""Tokens of columns, residual blocks of tables."""

import pytest
import torch
from torch import nn

from optnas.facts import count_params
from optnas.space.blocks import FeatureTokenizer, feature_tokenizer, tabular_block
from optnas.testing import check_space
from optnas.trial import Draw


def test_every_column_has_its_token() -> None:
    numbers, codes = torch.randn(4, 3), torch.tensor([[0, 4], [1, 3], [1, 0], [0, 2]])
    model = FeatureTokenizer(6, categories=(2, 5))
    tokens = model(numbers, codes)
    assert tokens.shape == (4, 1 + 3 + 2, 6)
    torch.testing.assert_close(tokens[:, 0], model.class_token[0].expand(4, 6))
    torch.testing.assert_close(tokens[1, 2], numbers[1, 1] * model.weight[1] + model.bias[1])
    torch.testing.assert_close(tokens[1, 5], model.embeddings[1].weight[3] + model.bias[4])
    assert count_params(model) == 6 * (1 + 3 + 2 + 5 + 3 + 2)


def test_categories_are_given_as_they_were_said() -> None:
    with pytest.raises(ValueError, match=r"categories=\(2, 5\) and got no codes"):
        FeatureTokenizer(6, categories=(2, 5))(torch.randn(4, 3))
    with pytest.raises(ValueError, match=r"categories=\(\) and got codes of 1 columns"):
        FeatureTokenizer(6)(torch.randn(4, 3), torch.zeros(4, 1).long())


def test_a_block_adds_its_branch() -> None:
    x = torch.randn(5, 4)
    fixed = {"expansion": 1.5, "dropout": 0.0, "activation": nn.ReLU}
    model = tabular_block(Draw(lambda *_: 1), **fixed)
    model(x)
    hidden = model.widen(model.norm(x))
    assert hidden.shape == (5, 6)
    torch.testing.assert_close(model(x), x + model.project(hidden.relu()))


def test_both_are_spaces() -> None:
    check_space(lambda trial: feature_tokenizer(trial, width=(2, 3), class_token=(False, True)), (3, 4))
    check_space(lambda trial: tabular_block(trial, residual_dropout=(0.0, 0.1)), (3, 4))

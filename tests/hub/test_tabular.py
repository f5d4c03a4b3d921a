import torch
from fixtures.hub import learns, n_params
from torch import nn

from optnas.hub import tabular
from optnas.testing import check_space
from optnas.trial import replay


def test_the_default_transformer_is_a_member_of_about_the_published_size() -> None:
    tokens = 100 * 2 * 192 + 192
    attention = 4 * (192 * 192 + 192)
    hidden = 192 * 2 * 256 + 2 * 256 + 256 * 192 + 192
    blocks = 3 * (attention + hidden) + 5 * 2 * 192  # the first attention has no normalization of its own
    assert tokens + blocks == 929_664  # the appendix says 929 thousand
    size = n_params(tabular.ft_transformer, tabular.FT_DEFAULT, (2, 100))
    assert size == tokens + blocks + 2 * 192 + 192 + 1


def test_the_residual_network_has_the_size_by_hand() -> None:
    block = 2 * 128 + 128 * 256 + 256 + 256 * 128 + 128
    expected = 100 * 128 + 128 + 2 * block + 2 * 128 + 128 + 1
    assert n_params(tabular.resnet, tabular.RESNET, (2, 100)) == expected


def test_the_output_is_that_of_the_class_token() -> None:
    model = tabular.ft_transformer(replay({"width": 64, "expansion": 1.0, "depth": 1}))
    x = torch.randn(3, 4)
    model.eval()(x)
    tokens = model.blocks(model.tokenizer(x, None))
    expected = model.output(model.norm(tokens[:, 0]).relu())
    torch.testing.assert_close(model(x), expected)
    assert isinstance(model.blocks[0].attention_norm, nn.Identity)


def test_both_are_spaces_whose_networks_learn() -> None:
    def transformer(trial):
        return tabular.ft_transformer(trial, width=(4, 8), depth=(1, 2), heads=2, categories=(3,), outputs=2)

    both = (torch.randn(4, 3), torch.tensor([[0], [2], [1], [0]]))
    check_space(transformer, both, n_samples=2)
    check_space(lambda trial: tabular.resnet(trial, width=(4, 8), depth=(1, 2)), (4, 3), n_samples=2)
    narrow = {"width": 64, "expansion": 1.0, "depth": 1}
    learns(tabular.ft_transformer(replay(narrow), outputs=3), torch.randn(8, 5))
    learns(tabular.resnet(replay(narrow), outputs=3), torch.randn(8, 5))

"""Transformer blocks against torch's layers."""

import pytest
import torch
from torch import nn

from optnas.facts import count_params
from optnas.space.blocks import (
    SEQUENCE_NORMS,
    Stack,
    decoder_block,
    encoder_block,
    feed_forward,
    mask_of,
)
from optnas.testing import check_space
from optnas.trial import Draw

TORCH_NAMES = {
    "out_proj.weight": "attention.out.weight",
    "out_proj.bias": "attention.out.bias",
    "linear1.weight": "feed_forward.widen.weight",
    "linear1.bias": "feed_forward.widen.bias",
    "linear2.weight": "feed_forward.project.weight",
    "linear2.bias": "feed_forward.project.bias",
}


def fixed(block, **settings):
    return block(Draw(lambda name, _: pytest.fail(f"{name} was asked")), **settings)


def copy_from(ours: nn.Module, theirs: nn.Module, norms: dict[str, str], attentions: dict[str, str]) -> None:
    state = theirs.state_dict()
    loaded = {}
    for name, value in state.items():
        head, _, rest = name.partition(".")
        if head in attentions and rest.startswith("in_proj"):
            for part, values in zip(("query", "key", "value"), value.chunk(3), strict=True):
                loaded[f"{attentions[head]}.{part}.{rest.removeprefix('in_proj_')}"] = values
        elif head in attentions:
            loaded[f"{attentions[head]}.{rest.replace('out_proj', 'out')}"] = value
        elif head in norms:
            loaded[f"{norms[head]}.{rest}"] = value
        else:
            loaded[TORCH_NAMES[name]] = value
    ours.load_state_dict(loaded)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_an_encoder_block_is_that_of_torch(pre_norm: bool) -> None:
    x, mask = torch.randn(3, 5, 8), mask_of(torch.tensor([5, 1, 3]), 5)
    ours = fixed(encoder_block, heads=2, expansion=3, pre_norm=pre_norm, activation=nn.ReLU)
    ours(x)
    theirs = nn.TransformerEncoderLayer(8, 2, 24, 0.0, batch_first=True, norm_first=pre_norm)
    copy_from(
        ours, theirs, {"norm1": "attention_norm", "norm2": "feed_forward_norm"}, {"self_attn": "attention"}
    )
    torch.testing.assert_close(ours(x, mask=mask), theirs(x, src_key_padding_mask=~mask))


@pytest.mark.parametrize("pre_norm", [False, True])
def test_a_decoder_block_is_that_of_torch(pre_norm: bool) -> None:
    x, context, mask = torch.randn(3, 5, 8), torch.randn(3, 4, 8), mask_of(torch.tensor([4, 1, 2]), 4)
    ours = fixed(decoder_block, heads=2, expansion=2, pre_norm=pre_norm, activation=nn.ReLU, cross=True)
    ours(x, context)
    theirs = nn.TransformerDecoderLayer(8, 2, 16, 0.0, batch_first=True, norm_first=pre_norm)
    norms = {"norm1": "attention_norm", "norm2": "cross_norm", "norm3": "feed_forward_norm"}
    copy_from(ours, theirs, norms, {"self_attn": "attention", "multihead_attn": "cross"})
    causal = nn.Transformer.generate_square_subsequent_mask(5)
    expected = theirs(x, context, tgt_mask=causal, memory_key_padding_mask=~mask, tgt_is_causal=True)
    torch.testing.assert_close(ours(x, context, context_mask=mask), expected)


@pytest.mark.parametrize("gated", [False, True])
def test_decoder_blocks_read_nothing_from_the_future(gated: bool) -> None:
    model = Stack(*(fixed(decoder_block, heads=2, expansion=2, gated=gated) for _ in range(3)))
    x = torch.randn(2, 6, 8)
    model(x)
    changed = x.clone()
    changed[:, 4:] = torch.randn(2, 2, 8)
    torch.testing.assert_close(model(x)[:, :4], model(changed)[:, :4])
    assert not torch.isclose(model(x)[:, 4:], model(changed)[:, 4:]).any(-1).all()


def test_padding_has_no_influence_on_a_stack_of_blocks() -> None:
    model = Stack(*(fixed(encoder_block, heads=2, expansion=2, positions="rotary") for _ in range(3)))
    lengths = torch.tensor([6, 2])
    x = torch.randn(2, 6, 8)
    y = model(x, mask=mask_of(lengths, 6))
    torch.testing.assert_close(y[1, :2], model(x[1:, :2])[0])


def test_a_gate_multiplies_the_hidden_layer() -> None:
    x = torch.randn(2, 3, 8)
    ours = fixed(feed_forward, expansion=1.5, gated=True, activation=nn.SiLU)
    ours(x)
    hidden = nn.functional.silu(ours.gate(x)) * ours.widen(x)
    assert hidden.shape == (2, 3, 12)
    torch.testing.assert_close(ours(x), ours.project(hidden))
    assert count_params(ours) == 2 * (8 * 12 + 12) + 12 * 8 + 8


def test_blocks_are_spaces() -> None:
    def space(trial):
        return encoder_block(
            trial,
            gated=(False, True),
            pre_norm=(False, True),
            norm=SEQUENCE_NORMS,
            drop_path=(0.0, 0.1),
            dropout=(0.0, 0.1),
            positions=(None, "rotary"),
        )

    check_space(space, (2, 5, 12), n_samples=10)
    check_space(decoder_block, (2, 5, 12), n_samples=5)


def test_a_context_goes_to_cross_attention_alone() -> None:
    x = torch.randn(2, 3, 8)
    with pytest.raises(ValueError, match="needs a context"):
        fixed(decoder_block, heads=2, expansion=2, cross=True)(x)
    with pytest.raises(ValueError, match="no cross attention"):
        fixed(encoder_block, heads=2, expansion=2)(x, x)

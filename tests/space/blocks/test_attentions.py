"""Attention against torch's own, and what may not have an influence."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from optnas import sample
from optnas.space.blocks import Attention, Windows, attention, mask_of, windowed
from optnas.space.blocks.attentions import rotate
from optnas.testing import check_space
from optnas.trial import Draw, replay


def made(attend: nn.Module, *inputs: Tensor, **named: Tensor) -> nn.Module:
    attend(*inputs, **named)
    return attend.eval()


def randomized(attend: nn.Module) -> nn.Module:
    for parameter in attend.parameters():
        nn.init.normal_(parameter, std=0.3)
    return attend.double()


def differ(x: Tensor, y: Tensor) -> Tensor:
    """At which positions, by more than rounding."""
    return ~torch.isclose(x, y, rtol=0, atol=1e-12).all(-1)


@pytest.mark.parametrize("padded", [False, True])
def test_it_is_the_attention_of_torch(padded: bool) -> None:
    x, context = torch.randn(3, 5, 12), torch.randn(3, 7, 6)
    ours = made(Attention(4), x, context)
    theirs = nn.MultiheadAttention(12, 4, kdim=6, vdim=6, batch_first=True).eval()
    state = ours.state_dict()
    theirs.load_state_dict(
        {
            "q_proj_weight": state["query.weight"],
            "k_proj_weight": state["key.weight"],
            "v_proj_weight": state["value.weight"],
            "in_proj_bias": torch.cat([state[f"{name}.bias"] for name in ("query", "key", "value")]),
            "out_proj.weight": state["out.weight"],
            "out_proj.bias": state["out.bias"],
        }
    )
    mask = mask_of(torch.tensor([7, 2, 4]), 7) if padded else None
    expected, _ = theirs(x, context, context, key_padding_mask=None if mask is None else ~mask)
    torch.testing.assert_close(ours(x, context, mask), expected)


def test_grouped_queries_are_those_of_torch() -> None:
    x = torch.randn(2, 5, 16)
    ours = made(Attention(8, kv_heads=2, head_width=3), x)
    heads = {
        name: getattr(ours, name)(x).unflatten(-1, (-1, 3)).transpose(1, 2)
        for name in ("query", "key", "value")
    }
    assert heads["key"].shape == (2, 2, 5, 3)
    y = functional.scaled_dot_product_attention(*heads.values(), enable_gqa=True)
    torch.testing.assert_close(ours(x), ours.out(y.transpose(1, 2).flatten(2)))


@pytest.mark.parametrize("positions", [None, "rotary", "relative"])
@pytest.mark.parametrize("window", [None, 3])
def test_a_causal_one_reads_nothing_from_later_positions(positions: str | None, window: int | None) -> None:
    x = torch.randn(2, 9, 8)
    attend = randomized(made(Attention(2, positions=positions, causal=True, window=window), x))
    x = x.double()
    changed = x.clone()
    changed[:, 5:] += 1
    before, after = attend(x), attend(changed)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert differ(before[:, 5:], after[:, 5:]).all()
    if window is not None:  # position 5 is seen by 5, 6 and 7
        one = x.clone()
        one[:, 5] += 1
        assert differ(before, attend(one))[0].nonzero().flatten().tolist() == [5, 6, 7]


def test_a_window_reaches_as_far_both_ways() -> None:
    x = torch.randn(1, 9, 8)
    attend = randomized(made(Attention(2, window=2), x))
    x = x.double()
    one = x.clone()
    one[:, 4] += 1
    assert differ(attend(x), attend(one))[0].nonzero().flatten().tolist() == [3, 4, 5]


@pytest.mark.parametrize("positions", [None, "rotary", "relative"])
def test_padding_has_no_influence(positions: str | None) -> None:
    lengths = torch.tensor([6, 2, 1])
    x, mask = torch.randn(3, 6, 8), mask_of(lengths, 6)
    attend = randomized(made(Attention(4, positions=positions), x))
    x = x.double()
    other = torch.where(mask[:, :, None], x, torch.randn(3, 6, 8).double())
    for y, z, alone, n in zip(attend(x, mask=mask), attend(other, mask=mask), x, lengths, strict=True):
        torch.testing.assert_close(y[:n], z[:n])
        torch.testing.assert_close(y[:n], attend(alone[None, :n])[0])


def test_nothing_to_attend_to_gives_zeros_before_the_last_projection() -> None:
    x = torch.randn(2, 3, 8)
    attend = made(Attention(2, positions="relative"), x)
    y = attend(x, mask=torch.zeros(2, 3, dtype=torch.bool))
    torch.testing.assert_close(y, attend.out.bias.expand_as(y))


def test_rotary_scores_depend_on_distances_alone() -> None:
    q, k = torch.randn(6), torch.randn(6)
    scores = rotate(q.expand(20, 6)) @ rotate(k.expand(20, 6)).T
    for distance in range(-19, 20):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scores[0, 0], q @ k)
    torch.testing.assert_close(rotate(q.expand(20, 6)).norm(dim=-1), q.norm().expand(20))


def test_a_relative_bias_favours_its_distance() -> None:
    x = torch.randn(1, 6, 4)
    attend = made(Attention(1, positions="relative", max_distance=2), x)
    with torch.no_grad():
        attend.distance[:, 1] = 100.0  # one position earlier
    value = attend.value(x)
    torch.testing.assert_close(attend(x)[:, 1:], attend.out(value[:, :-1]))
    with torch.no_grad():
        attend.distance.zero_()[:, 0] = 100.0  # two earlier, and all that are further away
    scores = attend.query(x[:, 5:]) @ attend.key(x[:, :4]).transpose(1, 2) / 2
    torch.testing.assert_close(attend(x)[:, 5:], attend.out(scores.softmax(-1) @ value[:, :4]))


@pytest.mark.parametrize("heads", [1, 3, 5])
@pytest.mark.parametrize("kv_heads", [None, 1, 2, 9])
@pytest.mark.parametrize("positions", [None, "rotary", "relative"])
def test_any_numbers_of_heads_fit_any_width(heads: int, kv_heads: int | None, positions: str | None) -> None:
    for width in (1, 4, 7):
        x = torch.randn(2, 3, width)
        assert Attention(heads, kv_heads=kv_heads, positions=positions)(x).shape == x.shape


@pytest.mark.parametrize("shift", [0, 1])
def test_windows_attend_within_themselves(shift: int) -> None:
    x = torch.randn(2, 4, 5, 7)
    model = randomized(made(Windows(Attention(2), 2, shift), x))
    x = x.double()
    assert model(x).shape == x.shape
    one = x.clone()
    one[:, :, 2, 3] += 1
    seen = differ(model(x).movedim(1, -1), model(one).movedim(1, -1))
    rows, columns = ((2, 3), (2, 3)) if shift == 0 else ((1, 2), (3, 4))
    assert {tuple(place) for place in seen[0].nonzero().tolist()} == {(r, c) for r in rows for c in columns}
    corner = model.block(x[:, :, 4:, 6:].flatten(2).transpose(1, 2))  # alone in its window, or with two more
    if shift == 0:
        torch.testing.assert_close(model(x)[:, :, 4, 6], corner[:, 0])


def test_both_are_spaces() -> None:
    def space(trial: object) -> nn.Module:
        return attention(trial, positions=(None, "rotary", "relative"), kv_heads=(1, None), window=(None, 2))

    check_space(space, (2, 5, 12))
    check_space(lambda trial: windowed(trial, size=(2, 3), shifted=True, heads=(1, 2)), (2, 4, 5, 6))
    assert set(sample(space, 0)) == {"heads", "positions", "kv_heads", "window"}
    assert isinstance(space(replay(sample(space, 0))), Attention)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match=r"positions='absolute'.*'rotary' or 'relative'"):
        Attention(2, positions="absolute")
    with pytest.raises(ValueError, match="head_width=3 is odd"):
        Attention(2, positions="rotary", head_width=3)
    with pytest.raises(ValueError, match="window=0"):
        Attention(2, window=0)
    with pytest.raises(ValueError, match=r"shift=4 must be in 0\.\.3"):
        Windows(nn.Identity(), 4, 4)
    assert attention(Draw(lambda name, _: 2), heads=2).heads == 2

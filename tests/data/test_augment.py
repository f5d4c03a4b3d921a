import pytest
import torch

from optnas.data import (
    in_turn,
    random_color,
    random_cutout,
    random_flip,
    random_jitter,
    random_scale,
    random_shift,
    random_time_mask,
    random_token_mask,
)


def test_random_shift_moves_by_at_most_a_pixel_and_every_way():
    x = torch.zeros(500, 2, 5, 5)
    x[:, 0, 2, 2] = 1
    x[:, 1, 0, 0] = 1
    shifted = random_shift(x, torch.Generator().manual_seed(0))
    places = {tuple(place) for place in shifted[:, 0].nonzero()[:, 1:].tolist()}
    assert shifted.shape == x.shape
    assert places == {(row, column) for row in (1, 2, 3) for column in (1, 2, 3)}
    assert shifted[:, 0].sum() == 500
    # A corner may leave the picture; nothing comes back in on the other side.
    assert shifted[:, 1, 2:].sum() == 0
    assert 150 < shifted[:, 1].sum() < 300
    assert torch.equal(shifted, random_shift(x, torch.Generator().manual_seed(0)))


def test_random_flip_mirrors_half_of_the_images():
    x = torch.arange(3.0).expand(400, 1, 2, 3)
    flipped = random_flip(x, torch.Generator().manual_seed(0))
    mirrored = (flipped == x.flip(-1)).all(dim=(1, 2, 3))
    assert ((flipped == x).all(dim=(1, 2, 3)) ^ mirrored).all()
    assert 150 < mirrored.sum() < 250


@pytest.mark.parametrize(
    ("augment", "shape"),
    [
        (random_cutout, (5, 3, 8, 8)),
        (random_color, (5, 3, 8, 8)),
        (random_jitter, (5, 3, 20)),
        (random_scale, (5, 3, 20)),
        (random_time_mask, (5, 3, 20)),
        (in_turn(random_flip, random_cutout), (5, 3, 8, 8)),
    ],
)
def test_augmentations_repeat_themselves_by_the_generator_and_leave_their_input(augment, shape):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0)) + 0.5
    before = x.clone()
    one, same, other = (augment(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(x, before)
    assert one.shape == x.shape
    assert one.dtype == x.dtype


def test_cutout_leaves_out_one_square():
    x = torch.ones(200, 2, 9, 9)
    holes = random_cutout(x, torch.Generator().manual_seed(0), size=4) == 0
    assert torch.equal(holes[:, 0], holes[:, 1])
    sizes = holes[:, 0].sum((1, 2))
    assert sizes.max() == 16
    assert sizes.min() >= 4
    rows, columns = holes[:, 0].any(2).sum(1), holes[:, 0].any(1).sum(1)
    assert torch.equal(rows * columns, sizes)


def test_a_time_mask_is_one_stretch():
    gone = random_time_mask(torch.ones(200, 2, 20), torch.Generator().manual_seed(0), share=0.25) == 0
    assert gone[:, 0].sum(1).unique().tolist() == [0, 1, 2, 3, 4, 5]
    assert (gone[:, 0].int().diff(dim=1).abs().sum(1) <= 2).all()


def test_tokens_are_masked_at_the_rate_asked_for():
    x = torch.arange(1, 10_001).view(100, 100)
    found = random_token_mask(x, torch.Generator().manual_seed(0), mask=0, share=0.3)
    assert (found == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert torch.equal(found[found != 0], x[found != 0])

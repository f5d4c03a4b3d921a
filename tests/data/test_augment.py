import torch

from optnas.data import random_flip, random_shift


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

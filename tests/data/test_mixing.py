from functools import partial

import pytest
import torch
from torch.nn import functional

from optnas.data import Batches, TensorData, random_cutmix, random_mixup


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def named(n, *shape):
    """Inputs that say which row they are: as many values of its number as a row holds."""
    return torch.arange(float(n)).view(n, *[1] * len(shape)).expand(n, *shape).clone()


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_inputs_and_targets_are_mixed_by_the_same_shares_of_the_same_rows(alpha):
    n = 200
    x, y = random_mixup(named(n, 2, 3), torch.arange(n), generator(), n_classes=n, alpha=alpha)
    torch.testing.assert_close(y.sum(1), torch.ones(n))
    assert ((y > 0).sum(1) <= 2).all()
    # Row i is number i: what a row's targets say it is made of is what its inputs are.
    expected = (y.double() @ torch.arange(n).double()).float()
    torch.testing.assert_close(x, expected.view(n, 1, 1).expand(n, 2, 3), rtol=1e-4, atol=1e-3)
    partners = y.clone()
    partners[torch.arange(n), torch.arange(n)] = 0
    assert ((partners > 0).sum(0) <= 1).all()  # each row is another's partner once
    # The share of the row itself has the mean and variance of Beta(alpha, alpha).
    own = y[torch.arange(n), torch.arange(n)]
    assert own.mean().item() == pytest.approx(0.5, abs=0.1)
    assert own.var().item() == pytest.approx(0.25 / (2 * alpha + 1), rel=0.25)


def test_several_inputs_are_mixed_alike():
    x = {"left": named(20, 2), "right": (named(20), 3 * named(20, 4))}
    mixed, _ = random_mixup(x, torch.arange(20) % 3, generator(), n_classes=3)
    torch.testing.assert_close(mixed["left"][:, 0], mixed["right"][0])
    torch.testing.assert_close(mixed["right"][1][:, 2], 3 * mixed["right"][0])
    assert not torch.equal(mixed["right"][0], x["right"][0])


def test_real_numbers_as_targets_are_mixed_as_they_are():
    x, y = random_mixup(named(30, 1), named(30, 2), generator())
    torch.testing.assert_close(y, x.expand(30, 2))


def test_what_does_not_count_has_no_share():
    labels = torch.tensor([[0, 1], [-100, 2], [1, -100]])
    _, y = random_mixup(named(3, 1), labels, generator(3), n_classes=3)
    assert y.shape == (3, 3, 2)
    x, _ = random_mixup(named(3, 1), named(3, 1), generator(3))  # tells the partners and shares
    one_hot = torch.zeros(3, 3, 2)
    for row, place in ((0, 0), (0, 1), (1, 1), (2, 0)):
        one_hot[row, labels[row, place], place] = 1
    shares, _ = random_mixup(torch.eye(3), torch.zeros(3), generator(3))
    torch.testing.assert_close(x[:, 0], shares @ torch.arange(3.0))
    torch.testing.assert_close(y, torch.einsum("ij,jcp->icp", shares, one_hot))


def test_a_rectangle_of_another_image_counts_by_its_area():
    n = 300
    images, y = random_cutmix(named(n, 2, 8, 6), torch.arange(n), generator(), n_classes=n)
    assert torch.equal(images[:, 0], images[:, 1])
    own = torch.arange(n).view(n, 1, 1)
    foreign = images[:, 0] != own
    area = foreign.float().mean((1, 2))
    torch.testing.assert_close(1 - y[torch.arange(n), torch.arange(n)], area)
    rows, columns = foreign.any(2).sum(1), foreign.any(1).sum(1)
    assert torch.equal(rows * columns, foreign.sum((1, 2)))  # one rectangle
    for i in range(n):
        partners = images[i, 0][foreign[i]].unique().long().tolist()
        assert len(partners) == (1 if foreign[i].any() else 0)
        assert all(y[i, partner] == pytest.approx(area[i].item(), abs=1e-6) for partner in partners)
    places = foreign.float().mean(0)
    assert places.min() > 0.05  # anywhere in the image
    assert area.min() == 0
    assert area.max() > 0.5


@pytest.mark.parametrize("mix", [random_mixup, random_cutmix])
def test_they_repeat_themselves_by_the_generator_and_leave_what_they_were_given(mix):
    images, labels = torch.rand(40, 1, 6, 6), torch.arange(40) % 4
    before = images.clone()
    one, same, other = (mix(images, labels, generator(seed), n_classes=4) for seed in (1, 1, 2))
    assert torch.equal(one[0], same[0])
    assert torch.equal(one[1], same[1])
    assert not torch.equal(one[1], other[1])
    assert torch.equal(images, before)
    assert one[0].dtype == images.dtype


@pytest.mark.parametrize(
    ("x", "y", "options", "error", "words"),
    [
        (torch.zeros(4, 2), torch.arange(4), {}, ValueError, "n_classes is needed"),
        (torch.zeros(4, 2), torch.arange(4), {"n_classes": 3}, ValueError, r"n_classes=3.*0\.\.3"),
        (torch.zeros(4, 2), -torch.arange(4), {"n_classes": 9}, ValueError, r"-3\.\.0"),
        (torch.zeros(4, 2), torch.arange(4), {"n_classes": 4, "alpha": 0.0}, ValueError, "alpha=0.0"),
        (torch.zeros(4, 2), torch.tensor([0.0, 1, -100, 1]), {}, ValueError, "ignore_index=None"),
        (torch.zeros(4, 2).long(), torch.arange(4), {"n_classes": 4}, TypeError, "torch.int64"),
        ({"ids": torch.zeros(4, 2).long()}, torch.arange(4), {"n_classes": 4}, TypeError, "torch.int64"),
        (torch.zeros(4, 2), {"a": torch.arange(4)}, {"n_classes": 4}, TypeError, "a dict"),
    ],
)
def test_what_cannot_be_mixed_is_refused(x, y, options, error, words):
    with pytest.raises(error, match=words):
        random_mixup(x, y, generator(), **options)


@pytest.mark.parametrize(
    ("x", "y", "error", "words"),
    [
        (torch.zeros(4, 2), torch.arange(4), TypeError, r"got \(4, 2\)"),
        (torch.zeros(4, 1, 5, 5), torch.zeros(4, 5, 5).long(), ValueError, "one label for each image"),
    ],
)
def test_what_has_no_rectangle_is_refused(x, y, error, words):
    with pytest.raises(error, match=words):
        random_cutmix(x, y, generator(), n_classes=4)


def test_numbers_that_do_not_count_elsewhere_may_be_said_to_be_numbers():
    y = torch.tensor([0.0, 1, -100, 1])
    _, mixed = random_mixup(named(4, 1), y, generator(), ignore_index=None)
    assert mixed.min() < 0


def test_training_batches_alone_are_mixed_and_an_epoch_is_repeated_exactly():
    rows = (torch.rand(90, 1, 4, 4), torch.arange(90) % 3)
    mix = partial(random_mixup, n_classes=3)

    def batches(seed):
        torch.manual_seed(seed)
        return TensorData(rows, batch_size=16, mix=mix).train_dataloader()

    loader = batches(0)
    epochs = [list(loader) for _ in range(2)]
    again = batches(0)
    again.batch_sampler.sampler.set_epoch(1)  # as an interrupted training goes on
    for (x, y), (same_x, same_y) in zip(epochs[1], again, strict=True):
        assert torch.equal(x, same_x)
        assert torch.equal(y, same_y)
    assert not torch.equal(epochs[0][0][1], epochs[1][0][1])
    assert not torch.equal(next(iter(batches(1)))[1], epochs[0][0][1])
    for _, y in TensorData(rows, mix=mix).val_dataloader():
        assert y.dtype == torch.int64


def test_rows_are_changed_before_they_are_mixed():
    def blank(x, generator):
        return torch.ones_like(x)

    rows = (torch.rand(20, 3), torch.arange(20) % 2)
    [(x, y)] = Batches(rows, 20, shuffle=0, augment=blank, mix=partial(random_mixup, n_classes=2))
    assert torch.equal(x, torch.ones(20, 3))
    assert not torch.equal(y, functional.one_hot(y.argmax(1), 2).float())

import torch
from fixtures.hub import learns, n_params
from torch import nn

from optnas.hub import tcn
from optnas.testing import check_space
from optnas.trial import replay


def by_hand(given: int, width: int, levels: int, kernel: int, classes: int) -> int:
    """Two convolutions a level, each with a bias and a length for each channel; a projection in the first."""
    total = given * width + width if given != width else 0
    for level in range(levels):
        total += (width if level else given) * width * kernel + width**2 * kernel + 4 * width
    return total + width * classes + classes


def test_the_published_networks_are_members_of_the_published_size() -> None:
    # Table 1 says 70 thousand for both tasks.
    assert n_params(tcn.network, tcn.SEQUENTIAL_MNIST, (2, 1, 784)) == by_hand(1, 25, 8, 7, 10) == 66_910
    assert n_params(tcn.network, tcn.ADDING_600, (2, 2, 600), classes=1) == by_hand(2, 24, 8, 8, 1) == 70_369


def test_every_step_sees_the_past_alone() -> None:
    model = tcn.network(replay(tcn.params_of(8, 3, 3)), classes=2, every_step=True)
    x = torch.randn(1, 2, 40, requires_grad=True)
    y = model(x)
    assert y.shape == (1, 2, 40)
    y[:, :, 30].sum().backward()
    reached = x.grad.abs().sum((0, 1)).nonzero().flatten()
    assert reached.max() == 30
    assert reached.min() >= 30 - 2 * 2 * 7
    last = tcn.network(replay(tcn.params_of(8, 3, 3)), classes=2)
    last(x)
    last.load_state_dict(model.state_dict())
    torch.testing.assert_close(last(x), model(x)[:, :, -1])


def test_it_is_a_space_whose_networks_learn() -> None:
    def space(trial):
        return tcn.network(
            trial, width=(3, 4), levels=(1, 2), causal=(True, False), dropout=(0.0, 0.1), classes=3
        )

    check_space(space, (2, 2, 9), n_samples=2)
    model = tcn.network(replay(tcn.params_of(8, 3, 3)), classes=3)
    assert isinstance(model, nn.Module)
    learns(model, torch.randn(6, 2, 20))

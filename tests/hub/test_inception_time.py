import torch
from fixtures.hub import learns, n_params

from optnas.hub import inception_time
from optnas.testing import check_space
from optnas.trial import replay


def test_the_published_network_is_a_member_of_the_published_size() -> None:
    # Ismail-Fawaz et al. (LITE, 2023) count 420,192 of one network without its classifier.
    classifier = 128 * 10 + 10
    size = n_params(inception_time.network, inception_time.INCEPTION, (2, 1, 96))
    assert size - classifier == 420_192
    first = 1 * 32 * (40 + 20 + 10) + 32 + 2 * 128
    others = 5 * (128 * 32 + 32 * 32 * (40 + 20 + 10) + 128 * 32 + 2 * 128)
    shortcuts = (1 * 128 + 2 * 128) + (128 * 128 + 2 * 128)
    assert first + others + shortcuts == 420_192


def test_it_is_a_space_whose_networks_learn() -> None:
    def space(trial):
        return inception_time.network(
            trial, depth=(1, 3, 4), width=(2, 3), kernel=(5, 8), bottleneck=2, classes=3
        )

    check_space(space, (2, 2, 11), n_samples=2)
    small = {**inception_time.INCEPTION, "width": 8, "bottleneck": 16, "depth": 3, "kernel": 10}
    learns(inception_time.network(replay(small), classes=3), torch.randn(6, 2, 20))

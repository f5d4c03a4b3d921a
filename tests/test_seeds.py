import random

import numpy as np
import torch

from optnas.seeds import (
    derive_seed,
    random_state,
    same_threads,
    seed_everything,
    set_random_state,
)


def test_seeds_depend_on_every_part_and_fit_every_generator() -> None:
    seeds = [derive_seed(study, number) for study in range(30) for number in range(30)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert seeds[0] == derive_seed(0, 0)


def test_a_seed_is_that_of_all_generators() -> None:
    def draw() -> list[float]:
        seed_everything(3)
        return [random.random(), np.random.rand(), torch.rand(1).item()]  # noqa: NPY002  # the global generator

    assert draw() == draw()


def test_random_state_goes_on_where_it_was() -> None:
    def draw() -> list[float]:
        numpy = [np.random.rand(), np.random.randn()]  # noqa: NPY002  # as above
        return [random.random(), random.gauss(0, 1), *numpy, torch.rand(1).item()]

    random.gauss(0, 1)  # leaves a second draw behind, as does NumPy's
    np.random.randn()  # noqa: NPY002  # as above
    state = random_state()
    first = [draw() for _ in range(3)]
    set_random_state(state)
    assert [draw() for _ in range(3)] == first


def test_a_trial_computes_with_the_threads_that_it_began_with_where_there_are_as_many() -> None:
    before = torch.get_num_threads()
    for recorded, expected in ((1, 1), (10_000, before)):
        with same_threads([{}, {"threads": recorded}, {"threads": 2}]):
            assert torch.get_num_threads() == expected
        assert torch.get_num_threads() == before

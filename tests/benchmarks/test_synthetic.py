import numpy as np
import pytest

from optnas.benchmarks import synthetic
from optnas.space.explore import neighbors, sample
from optnas.trial import replay


def loss(params):
    return synthetic.loss(replay(params))


def test_the_known_optimum_is_asked_in_full_and_costs_nothing() -> None:
    draw = replay(synthetic.OPTIMUM)
    assert synthetic.loss(draw) == pytest.approx(0, abs=1e-12)
    assert draw.params == synthetic.OPTIMUM


def test_nothing_is_as_good_as_the_optimum() -> None:
    rng = np.random.default_rng(0)
    assert min(loss(sample(synthetic.loss, rng)) for _ in range(2000)) > 0.5
    for i in range(20):
        assert min(loss(p) for p in neighbors(synthetic.loss, synthetic.OPTIMUM, rng=i)) > 0


def test_most_questions_depend_on_earlier_answers() -> None:
    rng = np.random.default_rng(0)
    asked = [set(sample(synthetic.loss, rng)) for _ in range(2000)]
    assert len(set.union(*asked)) == 62
    assert len(set.intersection(*asked)) == 8
    assert min(map(len, asked)) == 8
    assert max(map(len, asked)) == 26


def test_slots_are_all_questions_with_their_distributions() -> None:
    rng = np.random.default_rng(0)
    asked = {}
    for _ in range(2000):
        draw = replay(sample(synthetic.loss, rng))
        synthetic.loss(draw)
        asked |= draw.distributions
    assert asked == synthetic.SLOTS

"""An estimator around another one is that one in everything but its estimate."""

from __future__ import annotations

import inspect

from optnas.estimation.around import Around
from optnas.estimation.estimator import Estimator


def test_nothing_of_an_estimator_is_left_out() -> None:
    """A default of `Estimator` in its place would hide what the other one does."""
    asked = {name for name in vars(Estimator) if not name.startswith("_")}
    assert asked - vars(Around).keys() == set()
    assert inspect.isabstract(Around)

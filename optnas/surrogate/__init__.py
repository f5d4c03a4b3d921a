"""A model of trials with uncertainty: what would this architecture score?"""

from optnas.surrogate.encoder import Features
from optnas.surrogate.model import Surrogate
from optnas.surrogate.standing import is_feasible

__all__ = ["Features", "Surrogate", "is_feasible"]

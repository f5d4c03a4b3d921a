"""A model of finished trials with uncertainty: what would this architecture score?"""

from optnas.surrogate.model import Features, Surrogate, is_feasible

__all__ = ["Features", "Surrogate", "is_feasible"]

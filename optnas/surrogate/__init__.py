"""A model of trials with uncertainty: what would this architecture score?

Names are loaded on first use.
"""

from typing import TYPE_CHECKING

from optnas._lazy import lazily

if TYPE_CHECKING:
    from optnas.surrogate.encoder import Features as Features
    from optnas.surrogate.model import Surrogate as Surrogate
    from optnas.surrogate.standing import is_feasible as is_feasible

__getattr__, __dir__, __all__ = lazily(__name__)

"""Weights shared by all networks of a space: the supernet, its training, the scoring of its sub-networks.

Names are loaded on first use.
"""

from typing import TYPE_CHECKING

from optnas._lazy import lazily

if TYPE_CHECKING:
    from optnas.supernet.darts import Darts as Darts
    from optnas.supernet.fine_tuning import FineTuning as FineTuning
    from optnas.supernet.mixture import Mixture as Mixture
    from optnas.supernet.paths import Fair as Fair
    from optnas.supernet.paths import Sandwich as Sandwich
    from optnas.supernet.paths import SinglePath as SinglePath
    from optnas.supernet.supernet import Supernet as Supernet
    from optnas.supernet.validation import Validation as Validation

__getattr__, __dir__, __all__ = lazily(__name__)

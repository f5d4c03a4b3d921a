"""Weights shared by all networks of a space: the supernet, its training, the scoring of its sub-networks.

Names are loaded on first use.
"""

from typing import TYPE_CHECKING

from optnas._lazy import lazily

if TYPE_CHECKING:
    from optnas.supernet.supernet import Supernet as Supernet

__getattr__, __dir__, __all__ = lazily(__name__)

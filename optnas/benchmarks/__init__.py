"""Searches with known answers: published tables and functions, to compare strategies on.

Names are loaded on first use: a function does not need what reads tables.
"""

from typing import TYPE_CHECKING

from optnas._lazy import lazily

if TYPE_CHECKING:
    from optnas.benchmarks.tabular import Table as Table
    from optnas.benchmarks.tabular import Tabular as Tabular

__getattr__, __dir__, __all__ = lazily(__name__)

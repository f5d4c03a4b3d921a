"""Results that print as text and that a notebook shows as tables."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod

from rich.console import Console, RenderableType
from rich.jupyter import JupyterMixin

from optnas.printable import Printable


class Shown(JupyterMixin, ABC):
    """`str()` of a result is its table in plain text; a notebook's cell that ends with it shows the table."""

    @abstractmethod
    def _table(self) -> RenderableType:
        """The result as rich shows it; text in it may be anybody's."""

    def __rich__(self) -> RenderableType:
        return Printable(self._table())

    def __str__(self) -> str:
        text = io.StringIO()
        # Said in full, or a notebook would get the table as a display of its own, and the text in colors.
        console = Console(file=text, width=100, color_system=None, force_jupyter=False, force_terminal=False)
        console.print(self)
        return text.getvalue()

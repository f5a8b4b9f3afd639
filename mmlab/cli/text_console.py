"""Console of rich that shows all text as it is: markup, emoji codes and control characters."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from mmlab.system.printable import printable

#: Columns of an output that is not a terminal: more than any table has.
_UNLIMITED = 100_000


class TextConsole(Console):
    """A console for texts with names of users: of genes, files, methods and studies.

    In a file or a pipe, lines and tables have their natural width; rich would cut and wrap them at
    80 columns.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, **options)
        if not self.is_terminal:
            self.width = _UNLIMITED

    def render_str(self, text: str, **options: Any) -> Text:
        """Return the text of a line or a cell with its control characters escaped."""
        return super().render_str(printable(text), **options)

    def print_uncut(self, table: Table) -> None:
        """Print a table of numbers at its natural width, even if the terminal is narrower."""
        unlimited = self.options.update_width(_UNLIMITED)
        self.width = max(self.width, Measurement.get(self, unlimited, table).maximum)
        self.print(table)

"""Console of rich that shows all text as it is: markup, emoji codes and control characters."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from mmlab.system.printable import printable


class TextConsole(Console):
    """A console for texts with names of users: of genes, files, methods and studies."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return the text of a line or a cell with its control characters escaped."""
        return super().render_str(printable(text), **options)

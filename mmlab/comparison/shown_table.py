"""A table to read, for the terminal, Markdown and reports."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class ShownTable(NamedTuple):
    """Title, header and rows of formatted values, and a line that says what they are."""

    title: str
    header: list[str]
    rows: list[list[str]]
    legend: str = ""


def markdown(tables: Iterable[ShownTable]) -> str:
    """Return tables as Markdown."""
    lines: list[str] = []
    for title, header, rows, legend in tables:
        lines += [f"### {title[0].upper()}{title[1:]}", ""]
        lines += ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        lines += ["| " + " | ".join(row) + " |" for row in rows]
        lines += ["", *([legend, ""] if legend else [])]
    return "\n".join(lines)

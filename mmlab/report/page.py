"""Content of a report page: sections of text, tables and figures.

The layout is in ``template.html.j2``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import pandas as pd
from matplotlib.figure import Figure


class BestValue(str):
    """The best value of a table column, or one that ties with it; printed in bold."""

    __slots__ = ()
    best: ClassVar[bool] = True


@dataclass(frozen=True)
class Table:
    """A table of formatted values on the page.

    Attributes
    ----------
    title
        Heading above the table.
    header
        One name per column.
    rows
        One text per column.
    legend
        A line below the table: what its values are.
    n_text_columns
        The first columns contain text and are aligned left; numbers are aligned right.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    n_text_columns: int = 1
    legend: str = ""


@dataclass(frozen=True)
class PageFigure:
    """A figure on the page: file name without extension, caption and matplotlib figure."""

    name: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Section:
    """A section of the page: heading, paragraphs, tables, figures and commands, in this order."""

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[PageFigure] = ()
    #: Shell commands, printed verbatim.
    commands: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """A report.

    Attributes
    ----------
    title, question
        Title of the page, and the question that the study answers.
    summary
        The answer, in a few sentences.
    sections
        In the order of the page.
    commands
        Commands that computed the study.
    tables
        Tidy tables by file name without extension.
    """

    title: str
    question: str
    summary: Sequence[str]
    sections: Sequence[Section]
    commands: Sequence[str]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)

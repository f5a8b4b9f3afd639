"""A report as sections of text, tables and pictures; how they look is the template's matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import pandas as pd
from matplotlib.figure import Figure


class Best(str):
    """A cell of a table that is the best of its column."""

    __slots__ = ()
    best: ClassVar[bool] = True


@dataclass(frozen=True)
class Table:
    """A table for people: ``rows`` are texts; the first ``n_texts`` columns stand to the left."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    n_texts: int = 1


@dataclass(frozen=True)
class PageFigure:
    """A figure with its file name (without ending) and what it shows."""

    name: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it, in this order."""

    title: str
    text: Sequence[str] = ()
    grids: Sequence[Table] = ()
    pictures: Sequence[PageFigure] = ()
    #: Shown as they are to be typed.
    commands: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """A whole report.

    Attributes
    ----------
    title, question
        What it is about, and what it answers.
    summary
        The answer, in a few sentences.
    sections
        In order.
    commands
        How it was computed.
    tables
        Tidy tables by the name of their files.
    """

    title: str
    question: str
    summary: Sequence[str]
    sections: Sequence[Section]
    commands: Sequence[str]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)

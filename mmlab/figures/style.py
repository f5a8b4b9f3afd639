"""Resolution, markers and text of all figures, and how they are saved."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from matplotlib.figure import Figure

from mmlab.system.printable import printable

#: Dots per inch.
DPI = 120
#: Markers of points, in the order of their use.
MARKERS = "osD^vP*X"
#: Characters of the longest label in a legend or at a tick, the longest title or label of axes, and
#: the longest title of a figure.
MAX_LABEL, MAX_AXES, MAX_TITLE = 40, 64, 120


def figure_text(text: str, longest: int = MAX_LABEL) -> str:
    """Return text as a figure shows it: on one line, shortened, without effects.

    Control characters are shown as escapes, and dollar signs are escaped, so that matplotlib does
    not read text between them as mathematics.
    """
    shown = printable(text.replace("\n", " ").replace("\t", " "))
    if len(shown) > longest:
        shown = f"{shown[: longest - 1]}…"
    return shown.replace("$", r"\$")


def figure_labels(names: Iterable[str]) -> list[str]:
    """Return the :func:`figure_text` of names that differ; labels that are equal get numbers."""
    labels, seen = [], Counter[str]()
    for label in map(figure_text, names):
        seen[label] += 1
        labels.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return labels


def save_figure(figure: Figure, target: Path | IO[bytes], **options: Any) -> None:
    """Save a figure like ``figure.savefig``, without warnings about its text.

    The font may lack characters, which are drawn as boxes, and long labels may leave little room.
    The layout is computed once: a figure that is saved again gives the same file.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        warnings.filterwarnings("ignore", ".*_layout not applied", UserWarning)
        if figure.get_layout_engine() is not None:
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        figure.savefig(target, **options)

"""Resolution, markers and text of all figures."""

from __future__ import annotations

#: Dots per inch.
DPI = 120
#: Markers of points, in the order of their use.
MARKERS = "osD^vP*X"


def escape_mathtext(text: str) -> str:
    """Escape dollar signs, so that matplotlib does not read text between them as mathematics."""
    return text.replace("$", r"\$")

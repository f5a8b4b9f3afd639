"""mmlab: select gene panels, and compare the methods that select them."""

from __future__ import annotations

from mmlab.api import load_champion, select_markers

__all__ = ["__version__", "load_champion", "select_markers"]

__version__ = "0.1.0"

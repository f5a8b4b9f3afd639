"""The base of all callbacks of Ray Tune."""

from __future__ import annotations

from typing import Any

from ray.tune import Callback


class DriverCallback(Callback):
    """A Tune callback that is of use in the driver alone."""

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune writes its callbacks to disk, and mmlab never reads them back."""
        return {}

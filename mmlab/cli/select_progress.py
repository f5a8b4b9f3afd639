"""Progress of `mmlab select`: the present epoch on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmlab.cli.console import stderr

if TYPE_CHECKING:
    from rich.status import Status

    from mmlab.cli.text_console import TextConsole
    from mmlab.spec.base import Scalar

#: Seconds between two lines of an output that is not a terminal.
LINE_SECONDS = 30.0


@dataclass
class SelectProgress:
    """Shows what is computed, and its epochs, while it is entered.

    Attributes
    ----------
    title
        What is computed.
    max_epochs
        Epochs of the training, if it does not stop early; None for a method without epochs.
    """

    title: str
    max_epochs: Scalar | None
    console: TextConsole = field(default_factory=stderr)

    def __enter__(self) -> SelectProgress:
        self._status: Status | None = None
        self._printed = time.monotonic()
        if self.console.is_terminal:
            self._status = self.console.status(self.title)
            self._status.start()
        else:
            self.console.print(self.title)
        return self

    def __exit__(self, *error: object) -> None:
        if self._status is not None:
            self._status.stop()

    def update(self, epoch: dict[str, float]) -> None:
        """Show the metrics of an epoch, a row of :attr:`mmlab.trial.result.TrialResult.history`."""
        text = f"{self.title}: {self._describe(epoch)}"
        if self._status is not None:
            self._status.update(text)
        elif time.monotonic() - self._printed >= LINE_SECONDS:
            self._printed = time.monotonic()
            self.console.print(text)

    def _describe(self, epoch: dict[str, float]) -> str:
        from mmlab.trial.objective import OBJECTIVE

        score = epoch.get(OBJECTIVE, math.nan)
        at_most = "" if self.max_epochs is None else f" of at most {self.max_epochs}"
        known = "" if math.isnan(score) else f", validation score {score:.4f}"
        return f"epoch {epoch['epoch']:.0f}{at_most}{known}"

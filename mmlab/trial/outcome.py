"""How trials end."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """State of a trial, stored in the tag ``mmlab.outcome``."""

    RUNNING = "running"
    COMPLETE = "complete"
    STOPPED = "stopped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


#: Outcomes of ended trials, which a resumed study does not run again.
ENDED = frozenset({Outcome.COMPLETE, Outcome.STOPPED, Outcome.FAILED})

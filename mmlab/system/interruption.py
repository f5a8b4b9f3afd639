"""Signals that interrupt a study: its runs are closed before the process ends."""

from __future__ import annotations

import os
import signal
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: Seconds after the first signal in which further ones are the same request: `timeout` signals
#: both a process and its group, a shell repeats the SIGHUP of its terminal.
_SAME_REQUEST = 1.0
_FORCED = b"\nEnded at once. The next command on the tracking store closes the open runs.\n"


class StudyInterruptedError(KeyboardInterrupt):
    """A study was interrupted, by the user or because Ray was lost; its runs are closed.

    Attributes
    ----------
    study
        Name of the study; empty if there is none.
    reason
        Why it was interrupted, as a sentence; empty after Ctrl-C, SIGTERM and SIGHUP.
    """

    def __init__(self, study: str, reason: str = "") -> None:
        super().__init__(study)
        self.study = study
        self.reason = reason


class Interruption:
    """The request to end a study, by a signal or by :meth:`request` from another thread.

    The first request raises ``KeyboardInterrupt`` in the main thread, so that the study is closed.
    Later ones are ignored, except Ctrl-C, which ends the process at once.

    ``reason`` is that of :meth:`request`; empty if the user interrupted the study.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._at: float | None = None

    @property
    def requested(self) -> bool:
        """Whether the study is to end."""
        return self._at is not None

    def request(self, reason: str) -> None:
        """Interrupt the main thread, unless the user has."""
        if self.requested:
            return
        self.reason = reason
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)

    def handle(self, number: int, frame: Any) -> None:
        """Handle a signal."""
        now = time.monotonic()
        if number == signal.SIGHUP:
            _close_terminal()
        if self._at is None:
            self._at = now
            raise KeyboardInterrupt
        if number == signal.SIGINT and now - self._at > _SAME_REQUEST:
            os.write(2, _FORCED)
            os._exit(130)


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Raise ``KeyboardInterrupt`` on Ctrl-C, SIGTERM and SIGHUP during the block.

    A signal that is ignored, as SIGHUP under ``nohup``, stays ignored. After an interruption the
    handlers stay in place: the process is about to end, and a second Ctrl-C must not break that.

    Raises
    ------
    StudyInterruptedError
        The block was interrupted.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, interruption.handle)
    try:
        yield interruption
    except StudyInterruptedError:
        raise
    except KeyboardInterrupt as interrupt:
        raise StudyInterruptedError("", interruption.reason) from interrupt
    finally:
        if not interruption.requested:
            for number, handler in before.items():
                signal.signal(number, handler)


def _close_terminal() -> None:
    """Send the output nowhere if it goes to a terminal, which is gone: writing would fail."""
    with Path(os.devnull).open("w") as nowhere:
        for descriptor in (1, 2):
            # A terminal that is gone is no terminal to `isatty`.
            if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                os.dup2(nowhere.fileno(), descriptor)

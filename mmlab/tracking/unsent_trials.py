"""Ended trials that are still to be sent to the tracking store: on disk, or in memory."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

from mmlab.system.files import atomic_write, require_folder, set_aside
from mmlab.tracking.ended_trial import EndedTrial

_log = logging.getLogger(__name__)


class UnsentTrials:
    """Ended trials of a study, one file per trial.

    A trial whose file cannot be written, because the disk is full, is kept in memory.

    Attributes
    ----------
    folder
        Folder of the files.
    disk_error
        Why a trial could not be written to disk; empty if all were.
    """

    def __init__(self, folder: Path) -> None:
        require_folder(folder, "XDG_STATE_HOME")
        self.folder = folder
        self.disk_error = ""
        self._in_memory: dict[str, EndedTrial] = {}
        #: A trial may be put again while it is being sent.
        self._lock = threading.Lock()

    def put(self, trial: EndedTrial) -> None:
        """Write an ended trial to disk."""
        with self._lock:
            try:
                self._write(trial)
            except OSError as error:
                if not self.disk_error:
                    _log.warning(
                        "finished trials cannot be written to %s (%s): they are kept in memory "
                        "until the tracking store has them",
                        self.folder,
                        error.strerror,
                    )
                self.disk_error = str(error.strerror)
                self._in_memory[trial.digest] = trial

    def _write(self, trial: EndedTrial) -> None:
        with atomic_write(self.folder / f"{trial.digest}.json") as path:
            path.write_text(trial.to_json(), encoding="utf-8")

    def flush(self) -> int:
        """Try again to write the trials that are in memory; return how many are in memory alone."""
        with self._lock:
            try:
                for digest, trial in list(self._in_memory.items()):
                    self._write(trial)
                    del self._in_memory[digest]
            except OSError as error:
                self.disk_error = str(error.strerror)
            return len(self._in_memory)

    def __len__(self) -> int:
        # A file may be sent and removed meanwhile.
        return sum(1 for _ in self.folder.glob("*.json")) + len(self._in_memory)

    def all(self) -> list[EndedTrial]:
        """Return the trials, oldest first.

        Damaged files are set aside: their trials are computed again.
        """
        trials = [self._read(path) for path in self._files()]
        return [trial for trial, _ in trials if trial is not None] + list(self._in_memory.values())

    def take(self) -> Iterator[EndedTrial]:
        """Yield the trials, oldest first; each is removed once the next one is asked for.

        One that was put again meanwhile is kept.
        """
        for path in self._files():
            trial, text = self._read(path)
            if trial is None:
                continue
            yield trial
            with self._lock:
                if path.read_text(encoding="utf-8") == text:
                    path.unlink()
        for digest, trial in list(self._in_memory.items()):
            yield trial
            with self._lock:
                self._in_memory.pop(digest, None)

    def _read(self, path: Path) -> tuple[EndedTrial | None, str]:
        """Return the trial in a file and the file's text; no trial if the file is damaged."""
        try:
            text = path.read_text(encoding="utf-8")
            return EndedTrial.from_json(text), text
        except (ValueError, KeyError, TypeError):
            set_aside(path, "result of a trial that is still to be sent,")
            return None, ""

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.json"), key=lambda path: (path.stat().st_mtime, path))

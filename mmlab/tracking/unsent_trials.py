"""Ended trials that are still to be sent to the tracking store: in files, or in memory."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

from mmlab.errors import UserError
from mmlab.tracking.ended_trial import EndedTrial
from mmlab.tracking.storage import STORAGE_TAG, Files, describe_error
from mmlab.tracking.study_run import StudyRun

_log = logging.getLogger(__name__)


def waiting_files(study: StudyRun[Any]) -> Files:
    """Return the files of a study's trials that are still to be sent.

    They are in the storage of its tracking store, else in that which the study has already. If
    the two differ, all files are moved.

    Raises
    ------
    UserError
        They cannot be reached or written.
    """
    store, recorded = study.store, study.tags().get(STORAGE_TAG, "")
    storage = store.storage or recorded
    files = store.waiting_files(study.name, storage)
    try:
        files.create()
        if storage != recorded:
            old = store.waiting_files(study.name, recorded)
            for name in old.names():
                files.write(name, old.read(name))
                old.remove(name)
    except OSError as error:
        raise UserError(
            f"study {study.name}: its results cannot be moved to {files.place} or kept there: "
            f"{describe_error(error)}."
        ) from error
    if storage != recorded:
        store.set_tags(study.run_id, {STORAGE_TAG: storage})
    return files


def recorded_trials(study: StudyRun[Any]) -> list[EndedTrial]:
    """Return the trials that wait in the storage which the study has already, and leave them there.

    Raises
    ------
    UserError
        They cannot be reached.
    """
    files = study.store.waiting_files(study.name, study.tags().get(STORAGE_TAG, ""))
    try:
        return UnsentTrials(files).all()
    except OSError as error:
        raise UserError(
            f"study {study.name}: its results in {files.place} cannot be read: "
            f"{describe_error(error)}."
        ) from error


class UnsentTrials:
    """Ended trials of a study, one file per trial.

    A trial whose file cannot be written, because the disk is full, is kept in memory.

    Attributes
    ----------
    place
        Where the files are.
    file_error
        Why a trial could not be written to a file; empty if all were.
    """

    def __init__(self, files: Files) -> None:
        self.place = files.place
        self.file_error = ""
        self._files = files
        #: Names of the files, oldest first: no other process writes or removes any meanwhile.
        self._names = dict.fromkeys(files.names())
        self._in_memory: dict[str, EndedTrial] = {}
        #: A trial may be put again while it is being sent.
        self._lock = threading.Lock()

    def put(self, trial: EndedTrial) -> None:
        """Write an ended trial to its file."""
        with self._lock:
            try:
                self._write(trial)
            except OSError as error:
                if not self.file_error:
                    _log.warning(
                        "finished trials cannot be written to %s (%s): they are kept in memory "
                        "until the tracking store has them",
                        self.place,
                        describe_error(error),
                    )
                self.file_error = describe_error(error)
                self._in_memory[trial.digest] = trial

    def _write(self, trial: EndedTrial) -> None:
        name = f"{trial.digest}.json"
        self._files.write(name, trial.to_json())
        self._names[name] = None

    def flush(self) -> int:
        """Try again to write the trials that are in memory; return how many are in memory alone."""
        with self._lock:
            try:
                for digest, trial in list(self._in_memory.items()):
                    self._write(trial)
                    del self._in_memory[digest]
            except OSError as error:
                self.file_error = describe_error(error)
            return len(self._in_memory)

    def __len__(self) -> int:
        return len(self._names) + len(self._in_memory)

    def all(self) -> list[EndedTrial]:
        """Return the trials, oldest first.

        Damaged files are set aside: their trials are computed again.
        """
        trials = [self._read(name) for name in list(self._names)]
        return [trial for trial, _ in trials if trial is not None] + list(self._in_memory.values())

    def take(self) -> Iterator[EndedTrial]:
        """Yield the trials, oldest first; each is removed once the next one is asked for.

        One that was put again meanwhile is kept.
        """
        for name in list(self._names):
            trial, text = self._read(name)
            if trial is None:
                continue
            yield trial
            with self._lock:
                if self._text(name) == text:
                    self._files.remove(name)
                    del self._names[name]
        for digest, trial in list(self._in_memory.items()):
            yield trial
            with self._lock:
                self._in_memory.pop(digest, None)

    def _read(self, name: str) -> tuple[EndedTrial | None, str]:
        """Return the trial in a file and the file's text; no trial if it is damaged or gone."""
        try:
            text = self._text(name)
            if text is not None:
                return EndedTrial.from_json(text), text
        except (ValueError, KeyError, TypeError):
            self._files.set_aside(name)
        self._names.pop(name, None)
        return None, ""

    def _text(self, name: str) -> str | None:
        """Return the text of a file; None if somebody has removed it."""
        try:
            return self._files.read(name)
        except FileNotFoundError:
            return None

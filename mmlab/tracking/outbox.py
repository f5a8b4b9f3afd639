"""Local queue of ended trials that are still to be sent to the tracking store."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mmlab.datasets.cells import Cells
from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.trial import TrialSpec
from mmlab.system.files import atomic_write, require_folder, set_aside
from mmlab.system.redaction import redact
from mmlab.tracking.study_run import StudyRun, send_heartbeat
from mmlab.tracking.trial_record import Outcome
from mmlab.tracking.trial_run import TrialRun, close_trial
from mmlab.trial.result import TrialResult

_log = logging.getLogger(__name__)

#: Shortest and longest pause in seconds before the next attempt to reach the tracking store.
_PAUSES = (1.0, 30.0)
#: Seconds between heartbeats of a driver.
_HEARTBEAT_INTERVAL = 30.0


@dataclass(frozen=True)
class EndedTrial:
    """A trial that ended: complete with its result, or failed with a reason.

    Attributes
    ----------
    spec, digest
        The specification with defaults filled in, and its digest.
    parent
        Id of the run of the method that the trial belongs to; empty if there is none.
    result
        None if the trial failed.
    reason
        Why the trial failed.
    at_ms
        Time of its end, Unix time in milliseconds.
    """

    spec: TrialSpec
    digest: str
    parent: str
    result: TrialResult | None
    reason: str
    at_ms: int

    def to_json(self) -> str:
        """Return the trial as one JSON document."""
        content: dict[str, Any] = {
            "digest": self.digest,
            "parent": self.parent,
            "reason": redact(self.reason),
            "at_ms": self.at_ms,
            "spec": self.spec.model_dump(mode="json"),
            "result": None if self.result is None else self.result.to_json(),
        }
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str) -> EndedTrial:
        """Read a document written by :meth:`to_json`."""
        content = json.loads(text)
        content["spec"] = TrialSpec.model_validate(content["spec"])
        if content["result"] is not None:
            content["result"] = TrialResult.from_json(content["result"])
        return cls(**content)


class Outbox:
    """Ended trials of a study that are not in the tracking store yet, one file per trial.

    :meth:`put` writes the file. A thread sends it, retries while the store does not respond, and
    removes the file once the store has everything. Sending a trial twice is harmless. A trial whose
    file cannot be written, because the disk is full, is sent from memory.

    Attributes
    ----------
    last_error
        Error of the last attempt to send a trial; empty after a success.
    disk_error
        Why a trial could not be written to disk; empty if all were.
    """

    def __init__(self, study: StudyRun[ComparisonSpec], cells: Cells) -> None:
        self.study = study
        self.cells = cells
        self.folder = study.store.study_folder(study.name) / "outbox"
        require_folder(self.folder, "XDG_STATE_HOME")
        self.last_error = ""
        self.disk_error = ""
        self._in_memory: dict[str, EndedTrial] = {}
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send_all, name="outbox", daemon=True)
        self._last_heartbeat = time.monotonic()
        #: Guards files and memory: a trial may be put again while its file is being sent.
        self._file_lock = threading.Lock()

    def __enter__(self) -> Self:
        # The outbox retries by itself; MLflow's own seven retries would take four minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=_PAUSES[0])

    def put(self, trial: EndedTrial) -> None:
        """Write an ended trial to disk, to be sent by the thread."""
        with self._file_lock:
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
        self._wake.set()

    def _write(self, trial: EndedTrial) -> None:
        with atomic_write(self.folder / f"{trial.digest}.json") as path:
            path.write_text(trial.to_json(), encoding="utf-8")

    def flush(self) -> int:
        """Try again to write the trials that are in memory; return how many are in memory alone."""
        with self._file_lock:
            try:
                for digest, trial in list(self._in_memory.items()):
                    self._write(trial)
                    del self._in_memory[digest]
            except OSError as error:
                self.disk_error = str(error.strerror)
            return len(self._in_memory)

    def unsent(self) -> list[EndedTrial]:
        """Return the trials that are not sent yet, oldest first.

        Damaged files are set aside: their trials are computed again.
        """
        trials = [self._read(path) for path in self._files()]
        return [trial for trial, _ in trials if trial is not None]

    def _read(self, path: Path) -> tuple[EndedTrial | None, str]:
        """Return the trial in a file and the file's text; no trial if the file is damaged."""
        try:
            text = path.read_text(encoding="utf-8")
            return EndedTrial.from_json(text), text
        except (ValueError, KeyError, TypeError):
            set_aside(path, "result of a trial that is still to be sent,")
            return None, ""

    def drain(self, timeout: float) -> int:
        """Wait until all trials are sent, or until ``timeout`` seconds pass without progress.

        Returns
        -------
        Number of trials that could not be sent; :attr:`last_error` is the reason.
        """
        left, progress_at = self._count(), time.monotonic()
        while left and time.monotonic() - progress_at < timeout:
            self._wake.set()
            time.sleep(0.05)
            now = self._count()
            if now < left:
                left, progress_at = now, time.monotonic()
        return left

    def _count(self) -> int:
        return len(self._files()) + len(self._in_memory)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.json"), key=lambda path: (path.stat().st_mtime, path))

    def _send_all(self) -> None:
        pause = _PAUSES[0]
        while not self._stop.is_set():
            self._wake.wait(_HEARTBEAT_INTERVAL)
            self._wake.clear()
            try:
                if time.monotonic() - self._last_heartbeat > _HEARTBEAT_INTERVAL:
                    send_heartbeat(self.study)
                    self._last_heartbeat = time.monotonic()
                for path in self._files():
                    if self._stop.is_set():
                        return
                    trial, sent = self._read(path)
                    if trial is None:
                        continue
                    self._send(trial)
                    with self._file_lock:
                        if path.read_text(encoding="utf-8") == sent:
                            path.unlink()
                    self.last_error, pause = "", _PAUSES[0]
                for digest, trial in list(self._in_memory.items()):
                    if self._stop.is_set():
                        return
                    self._send(trial)
                    with self._file_lock:
                        self._in_memory.pop(digest, None)
                    self.last_error, pause = "", _PAUSES[0]
            except Exception as error:  # a missing server or network raises many types of errors
                self.last_error = f"{type(error).__name__}: {error}"
                _log.debug("cannot send a trial to the tracking store; retrying", exc_info=True)
                self._stop.wait(pause)
                self._wake.set()
                pause = min(2 * pause, _PAUSES[1])

    def _send(self, trial: EndedTrial) -> None:
        study = self.study
        parent = (study.name, trial.parent)
        run = TrialRun.open(
            study.store,
            study.experiment_id,
            trial.spec,
            trial.digest,
            self.cells,
            parent,
            frozenset({Outcome.COMPLETE}),
        )
        if run.ended:
            return
        if trial.result is not None:
            run.log_result_and_epochs(trial.result, trial.at_ms)
        outcome = Outcome.FAILED if trial.result is None else Outcome.COMPLETE
        close_trial(study.store, run.run_id, outcome, trial.reason)

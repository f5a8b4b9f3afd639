"""Ended trials on their way to the tracking store: first on disk, sent when the store answers."""

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
from mmlab.system.files import atomic_write
from mmlab.tracking.study import StudyRun, send_heartbeat
from mmlab.tracking.trial import Outcome, TrialRun, close_trial
from mmlab.trial.result import TrialResult

_log = logging.getLogger(__name__)

#: Seconds before the next attempt to reach a store that does not answer, at least and at most.
_PAUSES = (1.0, 30.0)
#: Seconds between signs of life of a driver.
_BEAT = 30.0


@dataclass(frozen=True)
class EndedTrial:
    """A trial that ended: complete with its result, or failed with a reason.

    Attributes
    ----------
    spec, digest
        What was run, resolved.
    parent
        Run id of the method that it belongs to.
    result
        None if it failed.
    reason
        Why it failed.
    at_ms
        When it ended, Unix time in milliseconds.
    """

    spec: TrialSpec
    digest: str
    parent: str
    result: TrialResult | None
    reason: str
    at_ms: int

    def to_json(self) -> str:
        """All of it as one JSON document."""
        content: dict[str, Any] = {
            "digest": self.digest,
            "parent": self.parent,
            "reason": self.reason,
            "at_ms": self.at_ms,
            "spec": self.spec.model_dump(mode="json"),
            "result": None if self.result is None else self.result.to_json(),
        }
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str) -> EndedTrial:
        """What :meth:`to_json` wrote."""
        content = json.loads(text)
        content["spec"] = TrialSpec.model_validate(content["spec"])
        if content["result"] is not None:
            content["result"] = TrialResult.from_json(content["result"])
        return cls(**content)


class Outbox:
    """The ended trials of a study that its store does not have yet, a file each.

    :meth:`put` returns once the file is safe; a thread sends it, tries again while the store does
    not answer, and removes the file once the store has everything. Sending twice does no harm.
    """

    def __init__(self, study: StudyRun[ComparisonSpec], cells: Cells) -> None:
        self.study = study
        self.cells = cells
        self.folder = study.store.state_folder / study.name / "outbox"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.trouble = ""
        self._work = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send_all, name="outbox", daemon=True)
        self._beat_at = time.monotonic()
        #: A trial may be put again while its file is being sent.
        self._replacing = threading.Lock()

    def __enter__(self) -> Self:
        # It tries again itself: MLflow's own seven attempts would be four minutes each time.
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
        self._work.set()
        self._thread.join(timeout=_PAUSES[0])

    def put(self, trial: EndedTrial) -> None:
        """Keep an ended trial; it is on disk when this returns."""
        text = trial.to_json()
        with self._replacing, atomic_write(self.folder / f"{trial.digest}.json") as path:
            path.write_text(text, encoding="utf-8")
        self._work.set()

    def waiting(self) -> list[EndedTrial]:
        """What is not sent yet, oldest first."""
        return [EndedTrial.from_json(path.read_text(encoding="utf-8")) for path in self._files()]

    def drain(self, patience: float) -> int:
        """Wait until all is sent, for ``patience`` seconds without progress at most.

        Returns
        -------
        The number of trials that could not be sent; :attr:`trouble` says why.
        """
        left, since = len(self._files()), time.monotonic()
        while left and time.monotonic() - since < patience:
            self._work.set()
            time.sleep(0.05)
            now = len(self._files())
            if now < left:
                left, since = now, time.monotonic()
        return left

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.json"), key=lambda path: (path.stat().st_mtime, path))

    def _send_all(self) -> None:
        pause = _PAUSES[0]
        while not self._stop.is_set():
            self._work.wait(_BEAT)
            self._work.clear()
            try:
                if time.monotonic() - self._beat_at > _BEAT:
                    send_heartbeat(self.study)
                    self._beat_at = time.monotonic()
                for path in self._files():
                    if self._stop.is_set():
                        return
                    sent = path.read_text(encoding="utf-8")
                    self._send(EndedTrial.from_json(sent))
                    with self._replacing:
                        if path.read_text(encoding="utf-8") == sent:
                            path.unlink()
                    self.trouble, pause = "", _PAUSES[0]
            except Exception as error:  # whatever a server or a network that is away raises
                self.trouble = f"{type(error).__name__}: {error}"
                _log.debug("the tracking store did not take a trial", exc_info=True)
                self._stop.wait(pause)
                self._work.set()
                pause = min(2 * pause, _PAUSES[1])

    def _send(self, trial: EndedTrial) -> None:
        study = self.study
        above = (study.name, trial.parent)
        run = TrialRun.open(
            study.store,
            study.experiment_id,
            trial.spec,
            trial.digest,
            self.cells,
            above,
            frozenset({Outcome.COMPLETE}),
        )
        if run.ended:
            return
        if trial.result is not None:
            run.log_all(trial.result, trial.at_ms)
        outcome = Outcome.FAILED if trial.result is None else Outcome.COMPLETE
        close_trial(study.store, run.run_id, outcome, trial.reason)

"""The trials of a search: those of the tracking store, and those that have ended since."""

from __future__ import annotations

from collections.abc import Iterable

from mmlab.datasets.cells import Cells
from mmlab.spec.base import Scalar
from mmlab.spec.search import SearchSpec
from mmlab.spec.trial import TrialSpec
from mmlab.tracking import EndedTrial, StudyRun, TrialRecord
from mmlab.trial.defaults import resolve_spec
from mmlab.trial.outcome import ENDED, Outcome
from mmlab.trial.run import OBJECTIVE


class SearchTrials:
    """The trials of a search, whether or not the tracking store has them already.

    Parameters
    ----------
    unsent
        Ended trials of an earlier process that the store may lack.
    """

    def __init__(
        self, study: StudyRun[SearchSpec], cells: Cells, unsent: Iterable[EndedTrial]
    ) -> None:
        self.study = study
        self.cells = cells
        self._records = {record.digest: record for record in study.trials()}
        self._histories: dict[str, list[tuple[int, float]]] = {}
        self._panels: dict[str, list[str]] = {}
        self._identities: dict[object, tuple[TrialSpec, str]] = {}
        for ended in unsent:
            self.end(ended)

    def identify(self, selector: str, params: dict[str, Scalar]) -> tuple[TrialSpec, str]:
        """Return the specification with defaults, and the digest, of a configuration."""
        key = (selector, tuple(sorted(params.items())))
        if key not in self._identities:
            spec = resolve_spec(self.study.spec.trial(selector, params), self.cells)
            self._identities[key] = (spec, spec.digest(self.cells.fingerprint))
        return self._identities[key]

    def start(self, spec: TrialSpec, digest: str) -> None:
        """Add a trial that runs; one that is known to have ended stays as it is."""
        known = self._records.get(digest)
        if known is None or known.outcome not in ENDED:
            record = TrialRecord("", digest, spec.selector, Outcome.RUNNING, spec, {}, "")
            self._records[digest] = record

    def end(self, trial: EndedTrial) -> None:
        """Add an ended trial."""
        self._records[trial.digest] = trial.record()
        self._histories[trial.digest] = [
            (int(epoch["epoch"]), epoch[OBJECTIVE]) for epoch in trial.epochs
        ]
        if trial.result is not None:
            self._panels[trial.digest] = list(map(str, trial.result.panel["gene"]))

    def of(self, selector: str) -> list[TrialRecord]:
        """Return the trials of a selector, in the order of their start."""
        return [record for record in self.all() if record.selector == selector]

    def n_ended(self, selector: str) -> int:
        """Return how many trials of a selector have ended."""
        return sum(record.outcome in ENDED for record in self.of(selector))

    def n_all_ended(self) -> int:
        """Return how many trials of all selectors have ended."""
        return sum(record.outcome in ENDED for record in self.all())

    def all(self) -> list[TrialRecord]:
        """Return all trials, in the order of their start."""
        return list(self._records.values())

    def history(self, record: TrialRecord) -> list[tuple[int, float]]:
        """Return (epoch, validation score) pairs of an ended trial, sorted by epoch."""
        known = self._histories.get(record.digest)
        return self.study.score_history(record, OBJECTIVE) if known is None else known

    def panel(self, record: TrialRecord) -> list[str]:
        """Return the names of the genes of a complete trial's panel, best first."""
        known = self._panels.get(record.digest)
        return self.study.panel(record) if known is None else known

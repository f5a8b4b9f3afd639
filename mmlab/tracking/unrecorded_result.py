"""The result of `mmlab select` that the tracking store does not take: kept in local files."""

from __future__ import annotations

from mmlab.errors import UserError
from mmlab.system.files import atomic_write
from mmlab.system.redaction import redact
from mmlab.tracking.store import TrackingStore
from mmlab.trial.result import TrialResult


class UnrecordedResultError(UserError):
    """The result of a trial that the tracking store did not take; the message says where it is."""

    def __init__(self, store: TrackingStore, result: TrialResult, error: Exception) -> None:
        self.result = result
        path = store.state_folder / f"{result.digest}.json"
        self.panel_file = path.with_suffix(".csv")
        try:
            with atomic_write(self.panel_file) as temporary:
                result.panel.to_csv(temporary, index=False)
            with atomic_write(path) as temporary:
                temporary.write_text(result.to_json(), encoding="utf-8")
            place = f"The panel is in {self.panel_file}, all metrics are in {path}."
        except OSError as failure:
            place = (
                f"{failure.filename} could not be written, either: {failure.strerror}. The panel: "
                f"{', '.join(result.panel['gene'])}."
            )
        super().__init__(
            f"tracking store {store.uri} did not take the result: {redact(str(error))}. {place}"
        )

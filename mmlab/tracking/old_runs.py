"""Old studies and their runs: which may be deleted, and deleting them with their artifacts."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from mmlab.errors import UserError
from mmlab.tracking.run_owner import owner_is_alive, owner_name
from mmlab.tracking.storage import STORAGE_TAG, describe_error
from mmlab.tracking.store import TrackingStore
from mmlab.tracking.study_lock import lock_study


@dataclass(frozen=True)
class OldStudy:
    """The runs of a study, or one run of `mmlab select`.

    Attributes
    ----------
    name
        Name of the study; id of a run without a study.
    used_at
        Latest start or end of its runs, Unix time in seconds.
    runs
        The run of the study, if there is one, and those below it.
    reason
        Why it may not be deleted; empty if it may.
    """

    name: str
    used_at: float
    runs: list[Run]
    reason: str

    @property
    def has_study(self) -> bool:
        """False for a run without a study."""
        return "mmlab.study" in self.runs[0].data.tags

    @property
    def title(self) -> str:
        """Name of the study; name and id of a run without a study."""
        return self.name if self.has_study else f"{self.runs[0].info.run_name}, run {self.name}"


def find_old_studies(
    store: TrackingStore, names: Collection[str] = (), older_than: float = 0.0
) -> list[OldStudy]:
    """Return the studies, and runs of `mmlab select`, that were last used a while ago.

    Runs that mmlab did not make are left out. A study is kept while a process runs it; if it was
    promoted, has a registered model, or was computed for a promotion; and if this machine has
    results that are still to be sent to it.

    Parameters
    ----------
    names
        Names of studies, or ids of their runs; empty: all.
    older_than
        Minimum time since the last use in seconds.

    Raises
    ------
    UserError
        The store has no study of a name.
    """
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in store.search({}):
        if "mmlab.kind" in run.data.tags:
            groups[run.data.tags.get("mmlab.study", run.info.run_id)].append(run)
    protected = _promoted(store, groups)
    studies = [_old_study(store, name, runs, protected) for name, runs in groups.items()]
    for name in names:
        if not any(_is_named(study, {name}) for study in studies):
            raise UserError(
                f"study {name!r} is not in {store.uri}. `mmlab prune --older-than 0d` lists all."
            )
    latest = time.time() - older_than
    return [
        study
        for study in sorted(studies, key=lambda study: study.used_at)
        if study.used_at <= latest and (not names or _is_named(study, set(names)))
    ]


def artifact_bytes(store: TrackingStore, study: OldStudy) -> int:
    """Return the size of all artifacts of a study."""
    return sum(_size(_artifacts(store, run)) for run in study.runs)


def delete_study(store: TrackingStore, study: OldStudy) -> None:
    """Delete the runs of a study with their artifacts, the study's own run first.

    The rows of runs leave a database at once. A tracking server keeps them, marked as deleted,
    until ``mlflow gc`` is run on its machine. A second call completes an interrupted one.

    Raises
    ------
    UserError
        A process runs the study now.
    """
    with ExitStack() as stack:
        if study.has_study:
            stack.enter_context(lock_study(store, study.name))
        _require_ended(store, study)
        for run in study.runs:
            _artifacts(store, run).delete_artifacts()
            store.client.delete_run(run.info.run_id)
            # Servers have no request for this. `mlflow gc --run-ids` would also delete all
            # experiments that the user has moved to the bin.
            rows = store.client._tracking_client.store
            if hasattr(rows, "_hard_delete_run"):
                rows._hard_delete_run(run.info.run_id)


def _old_study(
    store: TrackingStore, name: str, runs: list[Run], protected: Collection[str]
) -> OldStudy:
    runs = sorted(runs, key=lambda run: run.data.tags["mmlab.kind"] != "study")
    used_at = max(max(run.info.start_time, run.info.end_time or 0) for run in runs) / 1000
    reason = _running(runs)
    if not reason and name in protected:
        reason = "it belongs to a promotion or a registered model"
    if not reason:
        reason = _unsent(store, name, runs[0].data.tags.get(STORAGE_TAG, ""))
    return OldStudy(name, used_at, runs, reason)


def _unsent(store: TrackingStore, name: str, storage: str) -> str:
    """Say that results of a study are still to be sent, or may be; empty if none are."""
    try:
        if not store.waiting_files(name, storage).names():
            return ""
    except OSError as error:
        return f"{storage} may have results of it, but cannot be read: {describe_error(error)}"
    return "results of it are still to be sent: resume it first"


def _is_named(study: OldStudy, names: set[str]) -> bool:
    return bool({study.name, study.runs[0].info.run_id} & names)


def _promoted(store: TrackingStore, groups: dict[str, list[Run]]) -> set[str]:
    """Return the studies that were promoted, that promotions compare with, or that have models."""
    found: set[str] = set()
    for name, runs in groups.items():
        for run in runs:
            if run.data.tags["mmlab.kind"] == "promotion":
                found |= {name, *run.data.tags.get("mmlab.comparisons", "").split(",")}
    token: str | None = None
    while True:
        page = store.client.search_model_versions(page_token=token)
        found |= {version.tags.get("mmlab.study", "") for version in page}
        found |= {str(version.run_id) for version in page}
        token = page.token
        if not token:
            return found


def _running(runs: Collection[Run]) -> str:
    """Return the sentence on the process that runs a study; empty if there is none."""
    for run in runs:
        tags = run.data.tags
        if run.info.status == "RUNNING" and "mmlab.pid" in tags and owner_is_alive(tags):
            return f"it is running in {owner_name(tags)}"
    return ""


def _require_ended(store: TrackingStore, study: OldStudy) -> None:
    reason = _running([store.client.get_run(study.runs[0].info.run_id)])
    if reason:
        raise UserError(f"study {study.name} cannot be deleted: {reason}. Wait until it ends.")


def _artifacts(store: TrackingStore, run: Run) -> Any:
    """Return MLflow's repository of the artifacts of a run.

    Raises
    ------
    UserError
        They can be reached through their tracking server alone.
    """
    uri = str(run.info.artifact_uri)
    try:
        return store.artifacts(uri)
    except MlflowException as error:
        raise UserError(
            f"the artifacts of run {run.info.run_id} ({uri}) cannot be reached from {store.uri}. "
            "Pass the --tracking-uri of their tracking server."
        ) from error


def _size(artifacts: Any) -> int:
    return sum(_sizes(artifacts, None))


def _sizes(artifacts: Any, folder: str | None) -> Iterator[int]:
    for file in artifacts.list_artifacts(folder):
        if file.is_dir:
            yield from _sizes(artifacts, file.path)
        else:
            yield int(file.file_size or 0)

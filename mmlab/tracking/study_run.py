"""Studies as parent runs: creating, finding, claiming and closing them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import pandas as pd
from mlflow.entities import Run
from pydantic import Field, TypeAdapter

from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.spec.comparison import AnyStudy
from mmlab.spec.search import SearchSpec
from mmlab.tracking.lease import new_lease, take_lease
from mmlab.tracking.spec_tags import DAMAGED_SPEC, spec_json, spec_tags
from mmlab.tracking.store import TrackingStore
from mmlab.tracking.study_end import close_open_trials, finish_study
from mmlab.tracking.study_page import log_view
from mmlab.tracking.trial_record import TrialRecord, read_record

_STUDIES = {"mmlab.kind": "study"}

_ANY_STUDY: Any = Annotated[AnyStudy, Field(discriminator="study")]

SpecT = TypeVar("SpecT", bound=AnyStudy)
SpecT_co = TypeVar("SpecT_co", bound=AnyStudy, covariant=True)


@dataclass(frozen=True)
class StudyRun(Generic[SpecT_co]):
    """A study in the tracking store: name, parent run and specification."""

    store: TrackingStore
    name: str
    run_id: str
    experiment_id: str
    spec: SpecT_co

    def trials(self) -> list[TrialRecord]:
        """Return the records of all trials, oldest first."""
        runs = self.store.trial_runs(self.name, self.experiment_id)
        return [record for run in runs if (record := read_record(run)) is not None]

    def panel(self, trial: TrialRecord) -> list[str]:
        """Return the names of the genes of a complete trial's panel, best first."""
        return [str(gene) for gene in self._markers(trial)["gene"]]

    def panel_indices(self, trial: TrialRecord) -> list[int]:
        """Return the indices of the genes of a complete trial's panel, best first."""
        return [int(gene) for gene in self._markers(trial)["gene_index"]]

    def _markers(self, trial: TrialRecord) -> pd.DataFrame:
        with tempfile.TemporaryDirectory(prefix="mmlab-") as folder:
            path = self.store.client.download_artifacts(trial.run_id, "panel.csv", folder)
            # A gene may be called NA, 1e5 or nan.
            return pd.read_csv(path, dtype={"gene": str}, keep_default_na=False)

    def score_history(self, trial: TrialRecord, key: str) -> list[tuple[int, float]]:
        """Return (epoch, value) pairs of the metric ``key``, sorted by epoch."""
        points = self.store.client.get_metric_history(trial.run_id, key)
        return sorted((int(point.step), float(point.value)) for point in points)

    def with_spec(self, spec: SpecT) -> StudyRun[SpecT]:
        """Return the study with another specification, or with its own once its type is known."""
        return StudyRun(self.store, self.name, self.run_id, self.experiment_id, spec)

    def require_data(self, cells: Cells, advice: str) -> None:
        """Check that the cells are those that the study was created with.

        Raises
        ------
        UserError
            They are not; the message ends with ``advice``.
        """
        recorded = self.fingerprint()
        if cells.fingerprint != recorded:
            raise UserError(
                f"the data of study {self.name} have changed since it was created (fingerprint "
                f"{recorded[:12]}, now {cells.fingerprint[:12]}): {advice}."
            )

    def tags(self) -> dict[str, str]:
        """Return the tags of the parent run."""
        return dict(self.store.client.get_run(self.run_id).data.tags)

    def fingerprint(self) -> str:
        """Return the fingerprint of the data that the study was created with."""
        return self.tags()["mmlab.fingerprint"]

    def close_open_trials(self) -> None:
        """Close all trials' runs that are still RUNNING; unended trials become interrupted."""
        close_open_trials(self.store, self.name, self.experiment_id)

    def finish(self, complete: bool) -> None:
        """Close the parent run as FINISHED if ``complete``, else as KILLED.

        Open runs of trials and methods are closed first, and the outcomes are counted.
        """
        finish_study(self.store, self.name, self.run_id, self.experiment_id, complete)


def create_study(
    store: TrackingStore,
    name: str,
    spec: SpecT,
    cells: Cells,
    params: dict[str, Any],
    command: str,
    parent_run_id: str = "",
) -> StudyRun[SpecT]:
    """Create a study: a parent run in the experiment of the dataset.

    Parameters
    ----------
    params
        Params of the run, in addition to the name of the dataset.
    command
        Command line of the user.
    parent_run_id
        MLflow run below which the study is nested; empty: none.

    Raises
    ------
    UserError
        A process on another machine has created it at the same time.
    """
    experiment_id = store.experiment(cells.name)
    tags = {
        "mmlab.kind": "study",
        "mmlab.study": name,
        "mmlab.fingerprint": cells.fingerprint,
        **spec_tags(spec),
        "mmlab.command": command,
        **new_lease(),
    }
    if parent_run_id:
        tags["mlflow.parentRunId"] = parent_run_id
    run_id = store.create_run(experiment_id, name, tags)
    _require_only_one(store, name, run_id)
    store.log(run_id, params={"dataset": cells.name} | params)
    store.log_dataset(run_id, cells)
    content = spec.model_dump_json(indent=2) + "\n"
    store.log_files(run_id, lambda folder: _write(folder / "study.json", content))
    study = StudyRun(store, name, run_id, experiment_id, spec)
    _log_view(study)
    return study


def find_study(store: TrackingStore, name: str) -> StudyRun[AnyStudy] | None:
    """Find a study by its name or by the id of its parent run; None if there is none.

    Raises
    ------
    UserError
        The study's record in the store is damaged.
    """
    run = find_study_run(store, name)
    return None if run is None else _read_study(store, run)


def find_study_run(store: TrackingStore, name: str) -> Run | None:
    """Return the parent run of a study by its name or by the run's id; None if there is none."""
    for run in store.search(_STUDIES) if store.exists else ():
        if name in (run.data.tags.get("mmlab.study"), run.info.run_id):
            return run
    return None


def reclaim_study(store: TrackingStore, name: str, spec: SpecT) -> StudyRun[SpecT] | None:
    """Claim a study whose specification is known, and record it again; None if there is none.

    Raises
    ------
    UserError
        See :func:`claim_study`.
    """
    run = find_study_run(store, name)
    if run is None:
        return None
    study = StudyRun(store, name, run.info.run_id, run.info.experiment_id, spec)
    claim_study(study)
    store.set_tags(study.run_id, spec_tags(spec))
    return study


def open_study(store: TrackingStore, name: str) -> StudyRun[AnyStudy]:
    """Find a study by its name or by the id of its parent run.

    Raises
    ------
    UserError
        The store has no such study; the message lists the latest ones.
    """
    study = find_study(store, name)
    if study is not None:
        return study
    runs = list(store.search(_STUDIES)) if store.exists else []
    latest = ", ".join(run.data.tags.get("mmlab.study", "") for run in runs[-5:]) or "none"
    raise UserError(
        f"study {name!r} is not in {store.uri}; the latest studies there: {latest}. Check the name "
        "and --tracking-uri."
    )


def claim_study(study: StudyRun[Any]) -> None:
    """Make this process the owner of an existing study, to resume it.

    Raises
    ------
    UserError
        The study is running in another process, on this machine or another one.
    """
    take_lease(study.store, study.name, study.run_id)
    study.store.reopen(study.run_id)
    study.close_open_trials()
    _log_view(study)


def _require_only_one(store: TrackingStore, name: str, run_id: str) -> None:
    """Delete the run of a new study, and raise ``UserError``, if there is another of its name."""
    runs = store.search(_STUDIES | {"mmlab.study": name})
    if any(run.info.run_id != run_id for run in runs):
        store.client.delete_run(run_id)
        raise UserError(
            f"study {name} was created by another process at the same time. Run the command again."
        )


def _log_view(study: StudyRun[Any]) -> None:
    """Store the view that :func:`study_page` shows; the columns of a search are its parameters."""
    searched = list(study.spec.search.parameters) if isinstance(study.spec, SearchSpec) else []
    log_view(study.store, study.experiment_id, study.run_id, searched)


def _read_study(store: TrackingStore, run: Run) -> StudyRun[AnyStudy]:
    """Read a study from its parent run."""
    name = run.data.tags["mmlab.study"]
    try:
        spec: AnyStudy = TypeAdapter(_ANY_STUDY).validate_json(spec_json(run.data.tags))
    except DAMAGED_SPEC as error:
        raise UserError(
            f"study {name}: its specification in {store.uri} (tag mmlab.spec of run "
            f"{run.info.run_id}) is damaged. Delete this run in the MLflow UI, then start the "
            "study again under another name."
        ) from error
    return StudyRun(store, name, run.info.run_id, run.info.experiment_id, spec)


def _write(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")

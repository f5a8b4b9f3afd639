"""Finished replicates read from the tracking store, as rows of the result table."""

from __future__ import annotations

import logging
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path

import pandas as pd
import requests
from mlflow.entities import Run

from mmlab.comparison.result_table import ResultRow, row_from_parquet
from mmlab.tracking.store import TrackingStore
from mmlab.tracking.study_run import find_study_run
from mmlab.trial.outcome import Outcome

_log = logging.getLogger(__name__)

#: Artifact of a study with all its replicates, and of a trial with its own.
REPLICATES_FILE = "replicates.parquet"


def find_finished_replicates(
    store: TrackingStore, experiment_id: str, digests: Collection[str]
) -> Iterator[tuple[str, ResultRow]]:
    """Yield the finished replicates with one of the digests, from any study of an experiment.

    Each digest is yielded at most once, with its row. Rows are read from the table of their study
    if it contains them, else from the artifacts of their own run.
    """
    complete = {"mmlab.kind": "trial", "mmlab.outcome": str(Outcome.COMPLETE)}
    runs: dict[str, Run] = {}
    for run in store.search(complete, experiment_ids=[experiment_id]):
        if (digest := run.data.tags.get("mmlab.digest", "")) in digests:
            runs.setdefault(digest, run)
    by_study: dict[str, list[str]] = defaultdict(list)
    for digest, run in runs.items():
        by_study[run.data.tags.get("mmlab.study", "")].append(digest)
    for name, digests_of_study in by_study.items():
        study = find_study_run(store, name) if len(digests_of_study) > 1 else None
        table = {} if study is None else read_study_replicates(store, study.info.run_id)
        for digest in digests_of_study:
            rows = [table[digest]] if digest in table else []
            for row in rows or _read_undamaged(store, runs[digest].info.run_id):
                yield digest, row


def read_study_replicates(store: TrackingStore, run_id: str) -> dict[str, ResultRow]:
    """Return the rows of a comparison's table by digest; empty before its first summary."""
    if not _has_replicates(store, run_id):
        return {}
    return {row["digest"]: row for row in _read_undamaged(store, run_id)}


def read_replicates(store: TrackingStore, run_id: str) -> list[ResultRow]:
    """Return the rows of the table of replicates in the artifacts of a run."""
    with tempfile.TemporaryDirectory(prefix="mmlab-") as folder:
        path = Path(store.client.download_artifacts(run_id, REPLICATES_FILE, folder))
        return [row_from_parquet(row) for row in pd.read_parquet(path).to_dict(orient="records")]


def _has_replicates(store: TrackingStore, run_id: str) -> bool:
    return REPLICATES_FILE in {file.path for file in store.client.list_artifacts(run_id)}


def _read_undamaged(store: TrackingStore, run_id: str) -> list[ResultRow]:
    """Return the rows of a run's table; none, with a warning, if it is missing or damaged."""
    try:
        if _has_replicates(store, run_id):
            return read_replicates(store, run_id)
    except (ValueError, OSError, KeyError, NotImplementedError) as error:
        # Not an answer that a server failed to give.
        if isinstance(error, requests.RequestException | ConnectionError | TimeoutError):
            raise
    _log.warning("%s of run %s is missing or damaged: left out", REPLICATES_FILE, run_id)
    return []

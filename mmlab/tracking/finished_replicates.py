"""Finished replicates read from the tracking store, as rows of the result table."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path

import pandas as pd
from mlflow.entities import Run

from mmlab.comparison.result_table import ResultRow, row_from_parquet
from mmlab.tracking.store import TrackingStore
from mmlab.tracking.study_run import find_study_run
from mmlab.tracking.trial_record import Outcome

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
            if digest in table:
                yield digest, table[digest]
            else:
                (row,) = read_replicates(store, runs[digest].info.run_id)
                yield digest, row


def read_study_replicates(store: TrackingStore, run_id: str) -> dict[str, ResultRow]:
    """Return the rows of a comparison's table by digest; empty before its first summary."""
    if REPLICATES_FILE not in {file.path for file in store.client.list_artifacts(run_id)}:
        return {}
    return {row["digest"]: row for row in read_replicates(store, run_id)}


def read_replicates(store: TrackingStore, run_id: str) -> list[ResultRow]:
    """Return the rows of the table of replicates in the artifacts of a run."""
    with tempfile.TemporaryDirectory(prefix="mmlab-") as folder:
        path = Path(store.client.download_artifacts(run_id, REPLICATES_FILE, folder))
        return [row_from_parquet(row) for row in pd.read_parquet(path).to_dict(orient="records")]

"""What a store holds as finished: rows of replicates, by digest."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path

import pandas as pd
from mlflow.entities import Run

from mmlab.comparison.result_table import ResultRow, row_from_parquet
from mmlab.tracking.store import TrackingStore
from mmlab.tracking.study import find_study
from mmlab.tracking.trial import Outcome

#: The table of all replicates of a study, and of the one of a trial.
TABLE = "replicates.parquet"


def finished_rows(
    store: TrackingStore, experiment_id: str, wanted: Collection[str]
) -> Iterator[tuple[str, ResultRow]]:
    """Finished replicates among the ``wanted`` digests, each once, from any study of a dataset.

    They are read from the table of their study as far as that has them, else each from its run.
    """
    complete = f"tags.`mmlab.kind` = 'trial' and tags.`mmlab.outcome` = '{Outcome.COMPLETE}'"
    runs: dict[str, Run] = {}
    for run in store.search(complete, [experiment_id]):
        if run.data.tags["mmlab.digest"] in wanted:
            runs.setdefault(run.data.tags["mmlab.digest"], run)
    of_study: dict[str, list[str]] = defaultdict(list)
    for digest, run in runs.items():
        of_study[run.data.tags.get("mmlab.study", "")].append(digest)
    for name, digests in of_study.items():
        study = find_study(store, name) if len(digests) > 1 else None
        table = {} if study is None else study_rows(store, study.run_id)
        for digest in digests:
            if digest in table:
                yield digest, table[digest]
            else:
                (row,) = trial_rows(store, runs[digest].info.run_id)
                yield digest, row


def study_rows(store: TrackingStore, run_id: str) -> dict[str, ResultRow]:
    """Rows by digest of the table that a comparison has written; none before its end."""
    if TABLE not in {file.path for file in store.client.list_artifacts(run_id)}:
        return {}
    return {row["digest"]: row for row in trial_rows(store, run_id)}


def trial_rows(store: TrackingStore, run_id: str) -> list[ResultRow]:
    """The replicates of a run, as its table has them."""
    with tempfile.TemporaryDirectory(prefix="mmlab-") as folder:
        path = Path(store.client.download_artifacts(run_id, TABLE, folder))
        return [row_from_parquet(row) for row in pd.read_parquet(path).to_dict(orient="records")]

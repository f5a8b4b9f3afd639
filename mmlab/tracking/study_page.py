"""Addresses of pages of the MLflow UI: a study's trials by score, and single runs."""

from __future__ import annotations

import math
from urllib.parse import urlencode, urlsplit, urlunsplit

from mlflow.entities import Run

from mmlab.tracking.store import TrackingStore
from mmlab.trial.objective import SCORE

#: Without it, MLflow shows its start page for language models.
_MODE = {"workflowType": "machine_learning"}


def study_page(experiment_id: str, run_id: str) -> str:
    """Return the page with the runs below a study's run, highest score first.

    These are the trials of a search, the methods of a comparison. The result follows the address
    of a server, see :func:`page_address`.
    """
    view = {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{run_id}'",
        "orderByKey": f"metrics.`{SCORE}`",
        "orderByAsc": "false",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
    }
    return f"#/experiments/{experiment_id}/runs?{urlencode(view | _MODE)}"


def run_page(experiment_id: str, run_id: str) -> str:
    """Return the page of a run, as :func:`study_page`."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?{urlencode(_MODE)}"


def latest_study_page(store: TrackingStore) -> str | None:
    """Return the page of the study that is running or ended last; None if there is none."""
    runs = list(store.search({"mmlab.kind": "study"}))
    if not runs:
        return None
    latest = max(runs, key=_last_use)
    return study_page(latest.info.experiment_id, latest.info.run_id)


def _last_use(run: Run) -> float:
    """Return the end of a run, Unix time in milliseconds; infinite while it is running."""
    return math.inf if run.info.status == "RUNNING" else float(run.info.end_time or 0)


def page_address(server: str, page: str) -> str:
    """Return the address of a page on a server, without the user name and password of its URI."""
    parts = urlsplit(server)
    host = parts.netloc.rpartition("@")[2]
    return f"{urlunsplit((parts.scheme, host, parts.path.rstrip('/'), '', ''))}/{page}"

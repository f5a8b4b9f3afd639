"""Addresses of pages of the MLflow UI: a study's trials by score, and single runs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from urllib.parse import urlencode, urlsplit, urlunsplit

from mlflow.entities import Run

from mmlab.tracking.store import TrackingStore
from mmlab.trial.objective import SCORE

#: Without it, MLflow shows its start page for language models.
_MODE = {"workflowType": "machine_learning"}
#: Tags of experiments in which MLflow stores views that links refer to.
_VIEW_TAG = "mlflow.sharedViewState."


def log_view(
    store: TrackingStore, experiment_id: str, run_id: str, params: Sequence[str] = ()
) -> None:
    """Store the view that the page of a study shows: the runs below it, highest score first.

    ``params`` are shown as columns, next to the score and the time of the selection. Addresses
    cannot name columns; MLflow therefore stores views as tags of the experiment.
    """
    metrics = [f"metrics.`{name}`" for name in (SCORE, "fit_seconds")]
    columns = [*metrics, *(f"params.`{name}`" for name in params)]
    view = _facets(run_id) | {"orderByAsc": False, "selectedColumns": columns}
    text = json.dumps(view)
    store.client.set_experiment_tag(experiment_id, _VIEW_TAG + run_id, text)


def study_page(experiment_id: str, run_id: str, *, has_view: bool = True) -> str:
    """Return the page with the runs below a study's run, highest score first.

    These are the trials of a search, the methods of a comparison. The result follows the address
    of a server, see :func:`page_address`. A study that only older versions of mmlab have run has
    no view: the page then has MLflow's default columns.
    """
    view = {"viewStateShareKey": run_id} if has_view else _facets(run_id)
    return f"#/experiments/{experiment_id}/runs?{urlencode(view | _MODE)}"


def _facets(run_id: str) -> dict[str, str]:
    """Return the filter and the order of the runs below a study's run, as MLflow names them."""
    return {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{run_id}'",
        "orderByKey": f"metrics.`{SCORE}`",
        "orderByAsc": "false",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
    }


def run_page(experiment_id: str, run_id: str) -> str:
    """Return the page of a run, as :func:`study_page`."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?{urlencode(_MODE)}"


def latest_study_page(store: TrackingStore) -> str | None:
    """Return the page of the study that is running or ended last; None if there is none.

    The page of a benchmark that a promotion ran is that of the promotion, which has the verdict.
    """
    runs = list(store.search({"mmlab.kind": "study"}))
    if not runs:
        return None
    newest = max(runs, key=_last_use)
    latest = newest.info
    if promotion := newest.data.tags.get("mlflow.parentRunId"):
        return run_page(latest.experiment_id, promotion)
    tags = store.client.get_experiment(latest.experiment_id).tags
    has_view = _VIEW_TAG + latest.run_id in tags
    return study_page(latest.experiment_id, latest.run_id, has_view=has_view)


def _last_use(run: Run) -> float:
    """Return the end of a run, Unix time in milliseconds; infinite while it is running."""
    return math.inf if run.info.status == "RUNNING" else float(run.info.end_time or 0)


def page_address(server: str, page: str) -> str:
    """Return the address of a page on a server, without the user name and password of its URI."""
    parts = urlsplit(server)
    host = parts.netloc.rpartition("@")[2]
    return f"{urlunsplit((parts.scheme, host, parts.path.rstrip('/'), '', ''))}/{page}"

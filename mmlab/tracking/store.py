"""The MLflow tracking store: its location and set-up; creating, logging to and closing runs."""

from __future__ import annotations

import getpass
import hashlib
import logging
import os
import re
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput, Metric, Param, Run, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from platformdirs import user_state_path

import mmlab
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.system.environment import source_commit

DEFAULT_URI = "sqlite:///mlflow.db"
ARTIFACT_FOLDER = "mlartifacts"
_SQLITE = "sqlite:///"
#: Maximum length of a param's value in characters.
_MAX_PARAM_LENGTH = 6000
#: Values that an MLflow filter can quote.
_PLAIN = re.compile(r"[\w.:-]+", re.ASCII)
#: Maximum number of metrics in one request.
_MAX_METRICS = 500

logging.getLogger("alembic").setLevel(logging.WARNING)
logging.getLogger("mlflow").setLevel(logging.WARNING)


def resolve_uri(uri: str | None) -> str:
    """Return the tracking URI with an absolute path, because workers run in other directories.

    None is the SQLite file ``mlflow.db`` in the working directory.
    """
    uri = DEFAULT_URI if uri is None else uri
    if uri.startswith(_SQLITE):
        return _SQLITE + str(Path(uri.removeprefix(_SQLITE)).absolute())
    if "://" not in uri:
        raise UserError(
            f"tracking URI {uri!r} is not supported: use sqlite:///FILE, http(s)://HOST or a "
            "database URI."
        )
    return uri


class TrackingStore:
    """An MLflow tracking store; cheap to pickle, because it connects on first use."""

    def __init__(self, uri: str | None = None) -> None:
        self.uri = resolve_uri(uri)
        self._client: MlflowClient | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": self.uri, "_client": None}

    @property
    def client(self) -> MlflowClient:
        """MLflow client of this store."""
        if self._client is None:
            self._client = MlflowClient(tracking_uri=self.uri)
        return self._client

    def initialise(self) -> None:
        """Create or upgrade the database before several processes use it.

        Raises
        ------
        UserError
            The store cannot be reached or written.
        """
        if self.uri.startswith(_SQLITE):
            folder = self.folder
            if not folder.is_dir():
                raise UserError(
                    f"tracking URI {self.uri}: the folder {folder} does not exist. Create it, or "
                    "pass another --tracking-uri."
                )
        self.state_folder.mkdir(parents=True, exist_ok=True)
        try:
            # Two processes that create the same database at the same time would corrupt it.
            with FileLock(self.state_folder / "database"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.client.search_experiments(max_results=1)
        except (MlflowException, OSError) as error:
            raise UserError(
                f"tracking store {self.uri} cannot be used: {error}. Check --tracking-uri; a "
                "tracking server must be running."
            ) from error
        if self.uri.startswith(_SQLITE):
            # With a write-ahead log, readers (the UI) do not block writers; the mode is persistent.
            connection = sqlite3.connect(self.uri.removeprefix(_SQLITE))
            connection.execute("PRAGMA journal_mode=wal")
            connection.close()

    @property
    def exists(self) -> bool:
        """False for an SQLite store whose file does not exist; True for any other store."""
        return not self.uri.startswith(_SQLITE) or Path(self.uri.removeprefix(_SQLITE)).is_file()

    @property
    def state_folder(self) -> Path:
        """Local folder with the locks of studies and the trials that are still to be sent.

        It is in the user's state folder, which the environment variable ``XDG_STATE_HOME`` sets.
        """
        return user_state_path("mmlab") / hashlib.sha256(self.uri.encode()).hexdigest()[:12]

    def study_folder(self, study: str) -> Path:
        """Return the local folder of a study, below :attr:`state_folder`.

        A name that could be no folder, or another one, is replaced by its hash.
        """
        usable = re.fullmatch(r"\w[^/\x00-\x1f]*", study) and len(os.fsencode(study)) < 200
        name = study if usable else hashlib.sha256(study.encode()).hexdigest()[:24]
        return self.state_folder / name

    @property
    def folder(self) -> Path:
        """Folder of an SQLite database and its artifacts; else the working directory."""
        if self.uri.startswith(_SQLITE):
            return Path(self.uri.removeprefix(_SQLITE)).parent
        return Path.cwd()

    def experiment(self, name: str) -> str:
        """Return the id of the experiment of a dataset; create the experiment if there is none."""
        existing = self.client.get_experiment_by_name(name)
        if existing is not None and existing.lifecycle_stage == "deleted":
            raise UserError(
                f"experiment {name!r} in {self.uri} is deleted. Restore it in the MLflow UI, or "
                "pass another --tracking-uri."
            )
        if existing is not None:
            return str(existing.experiment_id)
        location = None
        if not self.uri.startswith("http"):
            location = (self.folder / ARTIFACT_FOLDER / quote(name, safe="")).as_uri()
        # Without this tag, the MLflow UI shows the experiment as one about language models.
        kind = {"mlflow.experimentKind": "custom_model_development"}
        return str(self.client.create_experiment(name, artifact_location=location, tags=kind))

    def create_run(self, experiment_id: str, name: str, tags: dict[str, str]) -> str:
        """Create a run with status RUNNING, and return its id.

        mmlab's version and commit and the user's name are added to ``tags``.
        """
        default_tags = {
            "mmlab.version": mmlab.__version__,
            "mlflow.user": getpass.getuser(),
            "mlflow.source.name": "mmlab",
            "mlflow.source.type": "LOCAL",
            **source_commit(),
        }
        run = self.client.create_run(experiment_id, tags=default_tags | tags, run_name=name)
        return str(run.info.run_id)

    def log_params(self, run_id: str, params: dict[str, Any]) -> None:
        """Log params; values that are too long are truncated."""
        items = [Param(key, str(value)[:_MAX_PARAM_LENGTH]) for key, value in params.items()]
        self.client.log_batch(run_id, params=items)

    def log_metrics(self, run_id: str, metrics: dict[str, float], step: int) -> None:
        """Log the finite metrics of one step with the current time."""
        self.log_points(run_id, metric_points(metrics, step))

    def log_points(self, run_id: str, points: Sequence[Metric]) -> None:
        """Log metrics of any number of steps in as few requests as possible."""
        for start in range(0, len(points), _MAX_METRICS):
            self.client.log_batch(run_id, metrics=points[start : start + _MAX_METRICS])

    def set_tags(self, run_id: str, tags: dict[str, str]) -> None:
        """Set tags in one request."""
        self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_dataset(self, run_id: str, cells: Cells) -> None:
        """Log the dataset of the cells, with their fingerprint, as the input of the run."""
        dataset = Dataset(
            name=cells.name,
            digest=cells.fingerprint[:32],
            source_type="mmlab",
            source=cells.origin,
            profile=(
                f'{{"cells": {cells.adata.n_obs}, "genes": {cells.adata.n_vars}, '
                f'"classes": {len(cells.classes)}}}'
            ),
        )
        self.client.log_inputs(run_id, [DatasetInput(dataset=dataset, tags=[])])

    def log_files(self, run_id: str, write: Callable[[Path], None]) -> None:
        """Call ``write`` with a temporary folder, and log what it writes there as artifacts."""
        with tempfile.TemporaryDirectory(prefix="mmlab-") as folder:
            write(Path(folder))
            self.client.log_artifacts(run_id, folder)

    def search(
        self,
        tags: Mapping[str, str],
        *,
        status: str = "",
        experiment_ids: list[str] | None = None,
    ) -> Iterator[Run]:
        """Yield all active runs with the given tags and, unless it is empty, status, oldest first.

        MLflow's filters have no escape for quotes, and names of users may hold any character:
        only plain values are filtered by MLflow, all are compared here.
        """
        plain = {key: value for key, value in tags.items() if _PLAIN.fullmatch(value)}
        conditions = [f"tags.`{key}` = '{value}'" for key, value in plain.items()]
        if status:
            conditions.append(f"attributes.status = '{status}'")
        if experiment_ids is None:
            experiment_ids = [e.experiment_id for e in self.client.search_experiments()]
        token: str | None = None
        while experiment_ids:
            page = self.client.search_runs(
                experiment_ids,
                " and ".join(conditions),
                max_results=1000,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            yield from (run for run in page if tags.items() <= run.data.tags.items())
            token = page.token
            if not token:
                return

    def close(self, run_id: str, status: str, tags: dict[str, str] | None = None) -> None:
        """Set tags and the final status of a run: FINISHED, FAILED or KILLED."""
        if tags:
            self.set_tags(run_id, tags)
        self.client.set_terminated(run_id, status)

    def reopen(self, run_id: str) -> None:
        """Set the status of a run to RUNNING."""
        self.client.update_run(run_id, status=RunStatus.to_string(RunStatus.RUNNING))


def metric_points(metrics: dict[str, float], step: int, at_ms: int | None = None) -> list[Metric]:
    """Return the finite metrics of a step as MLflow metrics.

    Their time is ``at_ms`` (Unix time in milliseconds), by default the current time. MLflow stores
    a metric only once if it is logged twice with the same value, step and time.
    """
    at_ms = int(time.time() * 1000) if at_ms is None else at_ms
    return [Metric(key, value, at_ms, step) for key, value in metrics.items() if is_finite(value)]


def is_finite(value: Any) -> bool:
    """Return True for a number that is neither NaN nor infinite.

    MLflow would store infinity as 1.8e308.
    """
    return isinstance(value, int | float) and value == value and abs(value) != float("inf")

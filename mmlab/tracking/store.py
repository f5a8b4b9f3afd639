"""A tracking store: where it is, that it exists, and how runs are created and closed in it."""

from __future__ import annotations

import getpass
import hashlib
import logging
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
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
_PARAM_LENGTH = 6000
_BATCH = 500

logging.getLogger("alembic").setLevel(logging.WARNING)
logging.getLogger("mlflow").setLevel(logging.WARNING)


def resolve_uri(uri: str | None) -> str:
    """Tracking URI with an absolute path: workers run in other directories."""
    uri = DEFAULT_URI if uri is None else uri
    if uri.startswith(_SQLITE):
        return _SQLITE + str(Path(uri.removeprefix(_SQLITE)).absolute())
    if "://" not in uri:
        raise UserError(
            f"tracking URI {uri!r} is not one of sqlite:///FILE, http(s)://HOST or a database URI."
        )
    return uri


class TrackingStore:
    """An MLflow tracking store; cheap to pickle, connects when first used."""

    def __init__(self, uri: str | None = None) -> None:
        self.uri = resolve_uri(uri)
        self._client: MlflowClient | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": self.uri, "_client": None}

    @property
    def client(self) -> MlflowClient:
        """The MLflow client of this store."""
        if self._client is None:
            self._client = MlflowClient(tracking_uri=self.uri)
        return self._client

    def initialise(self) -> None:
        """Create or upgrade the database, once, before several processes use it.

        Raises
        ------
        UserError
            The store cannot be reached or written.
        """
        if self.uri.startswith(_SQLITE):
            folder = self.folder
            if not folder.is_dir():
                raise UserError(f"tracking URI {self.uri}: the folder {folder} does not exist.")
        self.state_folder.mkdir(parents=True, exist_ok=True)
        try:
            # Two processes that create the same database at once would break it.
            with FileLock(self.state_folder / "database"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.client.search_experiments(max_results=1)
        except (MlflowException, OSError) as error:
            raise UserError(f"tracking store {self.uri} cannot be used: {error}.") from error
        if self.uri.startswith(_SQLITE):
            # Readers (the UI) no longer block writers; the mode is kept in the file.
            connection = sqlite3.connect(self.uri.removeprefix(_SQLITE))
            connection.execute("PRAGMA journal_mode=wal")
            connection.close()

    @property
    def exists(self) -> bool:
        """False for an SQLite store whose file was never created."""
        return not self.uri.startswith(_SQLITE) or Path(self.uri.removeprefix(_SQLITE)).is_file()

    @property
    def state_folder(self) -> Path:
        """Where this machine keeps what is not in the store yet, and its locks.

        The environment variable ``XDG_STATE_HOME`` moves it.
        """
        return user_state_path("mmlab") / hashlib.sha256(self.uri.encode()).hexdigest()[:12]

    @property
    def folder(self) -> Path:
        """Where an SQLite store and its artifacts lie; for a server, the working folder."""
        if self.uri.startswith(_SQLITE):
            return Path(self.uri.removeprefix(_SQLITE)).parent
        return Path.cwd()

    def experiment(self, name: str) -> str:
        """Id of the experiment of a dataset; it is created when first asked for."""
        found = self.client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage == "deleted":
            raise UserError(
                f"experiment {name!r} of {self.uri} was deleted: restore it in the MLflow UI, "
                "or choose another --tracking-uri."
            )
        if found is not None:
            return str(found.experiment_id)
        location = None
        if not self.uri.startswith("http"):
            location = (self.folder / ARTIFACT_FOLDER / quote(name, safe="")).as_uri()
        # Without the tag MLflow's pages take the experiment for one about language models.
        kind = {"mlflow.experimentKind": "custom_model_development"}
        return str(self.client.create_experiment(name, artifact_location=location, tags=kind))

    def create_run(self, experiment_id: str, name: str, tags: dict[str, str]) -> str:
        """Id of a new run, RUNNING, with version, commit and user added to ``tags``."""
        own = {
            "mmlab.version": mmlab.__version__,
            "mlflow.user": getpass.getuser(),
            "mlflow.source.name": "mmlab",
            "mlflow.source.type": "LOCAL",
            **source_commit(),
        }
        run = self.client.create_run(experiment_id, tags=own | tags, run_name=name)
        return str(run.info.run_id)

    def log_params(self, run_id: str, params: dict[str, Any]) -> None:
        """Write parameters; a value that is too long is cut."""
        items = [Param(key, str(value)[:_PARAM_LENGTH]) for key, value in params.items()]
        self.client.log_batch(run_id, params=items)

    def log_metrics(self, run_id: str, metrics: dict[str, float], step: int) -> None:
        """Write finite metrics of one step, as of now."""
        self.log_points(run_id, metric_points(metrics, step))

    def log_points(self, run_id: str, points: Sequence[Metric]) -> None:
        """Write points of metrics, of any number of steps, in as few requests as possible."""
        for start in range(0, len(points), _BATCH):
            self.client.log_batch(run_id, metrics=points[start : start + _BATCH])

    def set_tags(self, run_id: str, tags: dict[str, str]) -> None:
        """Write tags in one request."""
        self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_dataset(self, run_id: str, cells: Cells) -> None:
        """Record the cells as the run's input, with their fingerprint."""
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
        """Have ``write`` fill a temporary folder, and keep its content as artifacts."""
        with tempfile.TemporaryDirectory(prefix="mmlab-") as folder:
            write(Path(folder))
            self.client.log_artifacts(run_id, folder)

    def search(self, condition: str, experiment_ids: list[str] | None = None) -> Iterator[Run]:
        """All active runs that meet an MLflow filter, oldest first."""
        if experiment_ids is None:
            experiment_ids = [e.experiment_id for e in self.client.search_experiments()]
        token: str | None = None
        while experiment_ids:
            page = self.client.search_runs(
                experiment_ids,
                condition,
                max_results=1000,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            yield from page
            token = page.token
            if not token:
                return

    def close(self, run_id: str, status: str, tags: dict[str, str] | None = None) -> None:
        """Set the final status of a run: FINISHED, FAILED or KILLED."""
        if tags:
            self.set_tags(run_id, tags)
        self.client.set_terminated(run_id, status)

    def reopen(self, run_id: str) -> None:
        """Set a run RUNNING again."""
        self.client.update_run(run_id, status=RunStatus.to_string(RunStatus.RUNNING))


def metric_points(metrics: dict[str, float], step: int, at_ms: int | None = None) -> list[Metric]:
    """The finite metrics of a step, as of ``at_ms`` (Unix time in milliseconds) or of now.

    A point that is written again with the same time is the same point.
    """
    at_ms = int(time.time() * 1000) if at_ms is None else at_ms
    return [Metric(key, value, at_ms, step) for key, value in metrics.items() if is_finite(value)]


def is_finite(value: Any) -> bool:
    """True for a number that is neither NaN nor infinite (MLflow turns inf into 1.8e308)."""
    return isinstance(value, int | float) and value == value and abs(value) != float("inf")

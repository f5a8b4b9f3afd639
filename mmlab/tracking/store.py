"""The MLflow tracking store: its location and set-up; creating, logging to and closing runs."""

from __future__ import annotations

import logging
import re
import sqlite3
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput, Metric, Param, Run, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

import mmlab
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.system.environment import source_commit
from mmlab.system.files import require_folder
from mmlab.system.redaction import redact
from mmlab.tracking.local_state import state_folder, study_folder
from mmlab.tracking.metric_points import metric_points
from mmlab.tracking.moved_store import artifact_location
from mmlab.tracking.run_owner import user_name
from mmlab.tracking.store_checks import (
    require_reachable,
    require_writable,
    set_journal_mode,
)
from mmlab.tracking.tracking_uri import resolve_uri, sqlite_file, uri_source

#: Maximum length of a param's value in characters.
_MAX_PARAM_LENGTH = 6000
#: Values that an MLflow filter can quote.
_PLAIN = re.compile(r"[\w.:-]+", re.ASCII)
#: Maximum number of metrics in one request.
_MAX_METRICS = 500

logging.getLogger("alembic").setLevel(logging.WARNING)
logging.getLogger("mlflow").setLevel(logging.WARNING)


class TrackingStore:
    """An MLflow tracking store; cheap to pickle, because it connects on first use.

    Attributes
    ----------
    connection_uri
        The tracking URI, with a password if it has one: only to connect.
    uri
        The tracking URI without its password, to print and record.
    source
        Who set it: the option, an environment variable, or the default.
    """

    def __init__(self, uri: str | None = None) -> None:
        self.connection_uri = resolve_uri(uri)
        self.uri = redact(self.connection_uri)
        self.source = uri_source(uri)
        self._client: MlflowClient | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_client": None}

    @property
    def client(self) -> MlflowClient:
        """MLflow client of this store."""
        if self._client is None:
            self._client = MlflowClient(tracking_uri=self.connection_uri)
        return self._client

    def require_reachable(self) -> None:
        """Check that the store answers, within ten seconds; a missing SQLite file is no error.

        The artifacts of an SQLite store are looked for in its present folder from then on.

        Raises
        ------
        UserError
            The store cannot be reached, or was moved without its artifacts.
        """
        require_reachable(self.connection_uri, self.source)

    def require_writable(self) -> None:
        """Check that the store answers and that its local folders can be written.

        Raises
        ------
        UserError
            The store cannot be reached or written, or there is no folder for local state.
        """
        self.require_reachable()
        if (file := sqlite_file(self.uri)) is not None:
            require_writable(file)
        require_folder(self.state_folder, "XDG_STATE_HOME")

    def initialise(self) -> None:
        """Create or upgrade the database before several processes use it.

        Raises
        ------
        UserError
            See :meth:`require_writable`.
        """
        self.require_writable()
        try:
            # Two processes that create the same database at the same time would corrupt it.
            with FileLock(self.state_folder / "database"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if (file := sqlite_file(self.uri)) is not None:
                    set_journal_mode(file)
                self.client.search_experiments(max_results=1)
        except (MlflowException, OSError, sqlite3.Error, SQLAlchemyError) as error:
            reason = redact(" ".join(str(error).split()))[:300]
            raise UserError(
                f"tracking store {self.uri} ({self.source}) cannot be used: {reason}. Check "
                "--tracking-uri."
            ) from error

    @property
    def exists(self) -> bool:
        """False for an SQLite store whose file does not exist; True for any other store."""
        file = sqlite_file(self.uri)
        return file is None or file.is_file()

    @property
    def state_folder(self) -> Path:
        """Local folder with the locks of studies and the trials that are still to be sent."""
        return state_folder(self.uri)

    def study_folder(self, study: str) -> Path:
        """Return the local folder of a study, below :attr:`state_folder`."""
        return study_folder(self.uri, study)

    @property
    def folder(self) -> Path:
        """Folder of an SQLite database and its artifacts; else the working directory."""
        file = sqlite_file(self.uri)
        return Path.cwd() if file is None else file.parent

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
            location = artifact_location(self.folder, name)
        # Without this tag, the MLflow UI shows the experiment as one about language models.
        kind = {"mlflow.experimentKind": "custom_model_development"}
        return str(self.client.create_experiment(name, artifact_location=location, tags=kind))

    def create_run(self, experiment_id: str, name: str, tags: dict[str, str]) -> str:
        """Create a run with status RUNNING, and return its id.

        mmlab's version and commit and the user's name are added to ``tags``.
        """
        default_tags = {
            "mmlab.version": mmlab.__version__,
            "mlflow.user": user_name(),
            "mlflow.source.name": "mmlab",
            "mlflow.source.type": "LOCAL",
            **source_commit(),
        }
        all_tags = {key: redact(value) for key, value in (default_tags | tags).items()}
        run = self.client.create_run(experiment_id, tags=all_tags, run_name=name)
        return str(run.info.run_id)

    def log_params(self, run_id: str, params: dict[str, Any]) -> None:
        """Log params without passwords of URIs; values that are too long are truncated."""
        texts = {key: redact(str(value))[:_MAX_PARAM_LENGTH] for key, value in params.items()}
        items = [Param(key, text) for key, text in texts.items()]
        self.client.log_batch(run_id, params=items)

    def log_metrics(self, run_id: str, metrics: dict[str, float], step: int) -> None:
        """Log the finite metrics of one step with the current time."""
        self.log_points(run_id, metric_points(metrics, step))

    def log_points(self, run_id: str, points: Sequence[Metric]) -> None:
        """Log metrics of any number of steps in as few requests as possible."""
        for start in range(0, len(points), _MAX_METRICS):
            self.client.log_batch(run_id, metrics=points[start : start + _MAX_METRICS])

    def set_tags(self, run_id: str, tags: dict[str, str]) -> None:
        """Set tags in one request, without passwords of URIs."""
        items = [RunTag(key, redact(value)) for key, value in tags.items()]
        self.client.log_batch(run_id, tags=items)

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

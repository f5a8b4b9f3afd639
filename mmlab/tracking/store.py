"""The MLflow tracking store: its location, set-up and experiments, and the search for runs."""

from __future__ import annotations

import logging
import re
import sqlite3
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from mmlab.errors import UserError
from mmlab.system.files import require_folder
from mmlab.system.redaction import redact
from mmlab.tracking.local_state import OUTBOX, state_folder, study_folder
from mmlab.tracking.moved_store import artifact_location
from mmlab.tracking.run_writer import RunWriter
from mmlab.tracking.storage import Files, files_in_storage
from mmlab.tracking.store_checks import (
    require_reachable,
    require_writable,
    set_journal_mode,
)
from mmlab.tracking.tracking_uri import resolve_uri, sqlite_file, uri_source

#: Values that an MLflow filter can quote.
_PLAIN = re.compile(r"[\w.:-]+", re.ASCII)

logging.getLogger("alembic").setLevel(logging.WARNING)
logging.getLogger("mlflow").setLevel(logging.WARNING)


class TrackingStore(RunWriter):
    """An MLflow tracking store; cheap to pickle, because it connects on first use.

    Attributes
    ----------
    connection_uri
        The tracking URI, with a password if it has one: only to connect.
    uri
        The tracking URI without its password, to print and record.
    source
        Who set it: the option, an environment variable, or the default.
    storage
        Where trials wait until the store has them, see :mod:`mmlab.tracking.storage`; empty for
        the place that a study has already, or a local folder.
    """

    def __init__(self, uri: str | None = None, storage: str = "") -> None:
        self.connection_uri = resolve_uri(uri)
        self.uri = redact(self.connection_uri)
        self.source = uri_source(uri)
        self.storage = storage
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

    def waiting_files(self, study: str, storage: str) -> Files:
        """Return the files of a study's trials that are still to be sent.

        Parameters
        ----------
        storage
            Where they are; empty: in the study's local folder.
        """
        folder = self.study_folder(study) / OUTBOX
        if not storage:
            return files_in_storage(str(folder))
        return files_in_storage(storage, *folder.relative_to(self.state_folder.parent).parts)

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

    def trial_runs(self, study: str, experiment_id: str, *, status: str = "") -> Iterator[Run]:
        """Yield the runs of a study's trials, of any or of one status, oldest first."""
        tags = {"mmlab.study": study, "mmlab.kind": "trial"}
        return self.search(tags, status=status, experiment_ids=[experiment_id])

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

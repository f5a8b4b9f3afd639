"""Creating, logging to and closing MLflow runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunStatus, RunTag
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient

import mmlab
from mmlab.datasets.cells import Cells
from mmlab.system.environment import source_commit
from mmlab.system.redaction import redact
from mmlab.tracking.metric_points import metric_points
from mmlab.tracking.run_owner import user_name

#: Maximum length of a param's value in characters.
_MAX_PARAM_LENGTH = 6000
#: Maximum number of metrics in one request.
_MAX_METRICS = 500


class RunWriter:
    """Base class of the tracking store: whatever is written to its runs.

    A subclass has ``connection_uri``, the tracking URI to connect with, and ``client``.
    """

    connection_uri: str

    @property
    def client(self) -> MlflowClient:
        """MLflow client of the store."""
        raise NotImplementedError

    def start_run(
        self, experiment_id: str, name: str, tags: dict[str, str], started_ms: int | None = None
    ) -> tuple[str, str]:
        """Create a run with status RUNNING; return its id and the URI of its artifacts.

        mmlab's version and commit and the user's name are added to ``tags``. ``started_ms`` is the
        Unix time in milliseconds at which the run started, by default now.
        """
        default_tags = {
            "mmlab.version": mmlab.__version__,
            "mlflow.user": user_name(),
            "mlflow.source.name": "mmlab",
            "mlflow.source.type": "LOCAL",
            **source_commit(),
        }
        all_tags = {key: redact(value) for key, value in (default_tags | tags).items()}
        run = self.client.create_run(experiment_id, started_ms, all_tags, name)
        return str(run.info.run_id), str(run.info.artifact_uri)

    def create_run(self, experiment_id: str, name: str, tags: dict[str, str]) -> str:
        """Create a run that starts now, and return its id; see :meth:`start_run`."""
        return self.start_run(experiment_id, name, tags)[0]

    def log(
        self,
        run_id: str,
        points: Sequence[Metric] = (),
        params: Mapping[str, Any] = MappingProxyType({}),
        tags: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Log metrics of any number of steps, params and tags, in as few requests as possible.

        The tags come last: a run that has them has the metrics and params, too. Passwords of URIs
        are left out, and values of params that are too long are truncated.
        """
        texts = {key: redact(str(value))[:_MAX_PARAM_LENGTH] for key, value in params.items()}
        own_params = [Param(key, text) for key, text in texts.items()]
        own_tags = [RunTag(key, redact(value)) for key, value in tags.items()]
        starts = range(0, len(points), _MAX_METRICS) or (0,)
        for start in starts:
            is_last = start == starts[-1]
            self.client.log_batch(
                run_id,
                metrics=points[start : start + _MAX_METRICS],
                params=own_params if start == 0 else [],
                tags=own_tags if is_last else [],
            )

    def log_metrics(self, run_id: str, metrics: dict[str, float], step: int) -> None:
        """Log the finite metrics of one step with the current time."""
        self.log(run_id, metric_points(metrics, step))

    def set_tags(self, run_id: str, tags: dict[str, str]) -> None:
        """Set tags in one request, without passwords of URIs."""
        self.log(run_id, tags=tags)

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

    def log_files(
        self, run_id: str, write: Callable[[Path], None], artifact_uri: str | None = None
    ) -> None:
        """Call ``write`` with a temporary folder, and log what it writes there as artifacts.

        ``artifact_uri`` is that of the run; without it the store is asked.
        """
        with tempfile.TemporaryDirectory(prefix="mmlab-") as folder:
            write(Path(folder))
            uri = artifact_uri or str(self.client.get_run(run_id).info.artifact_uri)
            self.artifacts(uri).log_artifacts(folder)

    def artifacts(self, uri: str) -> Any:
        """Return MLflow's ``ArtifactRepository`` of a run, from the URI of the run's artifacts.

        Raises
        ------
        MlflowException
            They can be reached through their tracking server alone.
        """
        return get_artifact_repository(uri, tracking_uri=self.connection_uri)

    def close(
        self,
        run_id: str,
        status: str,
        tags: dict[str, str] | None = None,
        ended_ms: int | None = None,
    ) -> None:
        """Set tags and the final status of a run: FINISHED, FAILED or KILLED.

        ``ended_ms`` is the Unix time in milliseconds at which it ended, by default now.
        """
        if tags:
            self.set_tags(run_id, tags)
        self.client.set_terminated(run_id, status, ended_ms)

    def reopen(self, run_id: str) -> None:
        """Set the status of a run to RUNNING."""
        self.client.update_run(run_id, status=RunStatus.to_string(RunStatus.RUNNING))

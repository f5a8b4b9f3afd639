"""The MLflow run of a promotion, nested under its search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pandas as pd
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from mmlab.errors import UserError
from mmlab.spec.search import SearchSpec
from mmlab.tracking.metric_points import metric_points
from mmlab.tracking.model_registry import Champion, read_version
from mmlab.tracking.run_owner import (
    already_running,
    heartbeat_tags,
    other_owner_is_alive,
    owner_name,
    owner_tags,
)
from mmlab.tracking.study_run import StudyRun


@dataclass(frozen=True)
class PromotionRun:
    """The run of a promotion; every method can be repeated without changing the outcome.

    Attributes
    ----------
    study
        The search.
    run_id
        The run, a child of the search's run and the parent of the comparisons' runs.
    comparisons
        Names of the comparisons that evaluate the candidates: on the held-out test set, and under
        the paper's protocol.
    previous
        The champion before the promotion; None if there was none.
    """

    study: StudyRun[SearchSpec]
    run_id: str
    comparisons: tuple[str, ...]
    previous: Champion | None

    @contextmanager
    def open(self) -> Iterator[None]:
        """Own the run within the block; it is FINISHED at its end, or KILLED after an exception.

        Raises
        ------
        UserError
            The promotion is running in another process.
        """
        store = self.study.store
        run = store.client.get_run(self.run_id)
        if run.info.status == "RUNNING" and other_owner_is_alive(run.data.tags):
            raise already_running(self.study.name, owner_name(run.data.tags))
        store.reopen(self.run_id)
        store.set_tags(self.run_id, owner_tags() | heartbeat_tags())
        try:
            yield
        except BaseException:
            # A store that does not respond would block; the next study closes the run.
            with suppress(UserError, MlflowException):
                store.require_reachable()
                store.close(self.run_id, "KILLED")
            raise
        store.close(self.run_id, "FINISHED")

    def log_decision(
        self, candidates: pd.DataFrame, winner: str, verdict: str, digest: str
    ) -> None:
        """Log the table of the candidates, and which method is the champion now.

        Parameters
        ----------
        winner
            Name of the champion in the comparisons.
        verdict
            Why it is the champion; the first line is the headline.
        digest
            The trial that chose the champion's panel.
        """
        store = self.study.store
        store.client.update_run(self.run_id, name=f"promotion {digest[:8]}")
        tags = {
            "mmlab.winner": winner,
            "mmlab.verdict": verdict,
            "mlflow.note.content": verdict.replace("\n", "\n\n"),
        }
        store.set_tags(self.run_id, tags)
        store.log_files(
            self.run_id, lambda f: candidates.to_parquet(f / "candidates.parquet", index=False)
        )

    def log_accuracy(self, accuracy: float) -> None:
        """Log the accuracy of a new champion on the held-out test set."""
        store = self.study.store
        at_ms = store.client.get_run(self.run_id).info.start_time
        store.log(self.run_id, metric_points({"locked/knn/accuracy": accuracy}, 0, at_ms))


def create_promotion(
    study: StudyRun[SearchSpec], comparisons: Sequence[str], previous: Champion | None
) -> PromotionRun:
    """Create the run of a promotion; its comparisons are still to be computed."""
    tags = {
        "mmlab.kind": "promotion",
        "mmlab.study": study.name,
        "mmlab.comparisons": ",".join(comparisons),
        "mmlab.previous_champion": _version_name(previous),
        "mlflow.parentRunId": study.run_id,
        **owner_tags(),
        **heartbeat_tags(),
    }
    run_id = study.store.create_run(study.experiment_id, "promotion", tags)
    return PromotionRun(study, run_id, tuple(comparisons), previous)


def unfinished_promotions(
    study: StudyRun[SearchSpec], present: Champion | None
) -> Iterator[PromotionRun]:
    """Yield the promotions of a search that can be resumed, the latest first.

    ``present`` is the present champion. A promotion can be resumed if this is still the champion
    that it compares with, or the one that it registered itself.
    """
    runs = [run for run in _find_runs(study) if run.info.status != "FINISHED"]
    for run in reversed(runs):
        # Older versions of mmlab did not record the previous champion.
        name = run.data.tags.get("mmlab.previous_champion")
        if name is None:
            continue
        previous = read_version(study.store, name) if name else None
        registered = present is not None and present.run_id == run.info.run_id
        unchanged = _version_name(present) == name
        if unchanged or (registered and _version_name(previous) == name):
            comparisons = tuple(run.data.tags["mmlab.comparisons"].split(","))
            yield PromotionRun(study, run.info.run_id, comparisons, previous)


def find_promotions(study: StudyRun[Any]) -> list[dict[str, Any]]:
    """Return the finished promotions of a search, oldest first.

    Each has run_id, verdict (the first line is the headline), winner (name of the champion in the
    comparisons; empty if an older version of mmlab promoted) and comparisons (their names).
    """
    return [
        {
            "run_id": run.info.run_id,
            "verdict": run.data.tags["mmlab.verdict"],
            "winner": run.data.tags.get("mmlab.winner", ""),
            "comparisons": run.data.tags["mmlab.comparisons"].split(","),
        }
        for run in _find_runs(study)
        if run.info.status == "FINISHED"
    ]


def _find_runs(study: StudyRun[Any]) -> Iterator[Run]:
    tags = {"mmlab.study": study.name, "mmlab.kind": "promotion"}
    return study.store.search(tags, experiment_ids=[study.experiment_id])


def _version_name(champion: Champion | None) -> str:
    """Return ``<name>/<version>`` of a registered model; empty for None."""
    return "" if champion is None else f"{champion.model_name}/{champion.version}"

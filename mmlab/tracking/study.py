"""A study as a parent run: who works on it, which trials it has, and its summary."""

from __future__ import annotations

import math
import secrets
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from mlflow.entities import Run

from mmlab.config import StudySpec
from mmlab.datasets.base import Cells
from mmlab.errors import UserError
from mmlab.tracking.store import Store, owner_is_alive, owner_tags
from mmlab.tracking.trial import ENDED, Outcome, TrialRecord, close_trial, read_record

_STUDIES = "tags.`mmlab.kind` = 'study'"


@dataclass(frozen=True)
class StudyRun:
    """A study in a store: its name, its parent run, and what it searches."""

    store: Store
    name: str
    run_id: str
    experiment_id: str
    spec: StudySpec

    def trials(self) -> list[TrialRecord]:
        """Records of all trials, oldest first."""
        condition = f"tags.`mmlab.study` = '{self.name}' and tags.`mmlab.kind` = 'trial'"
        return [read_record(run) for run in self.store.search(condition, [self.experiment_id])]

    def panel(self, trial: TrialRecord) -> list[str]:
        """Genes of a complete trial's panel, best first."""
        with tempfile.TemporaryDirectory(prefix="mmlab-") as folder:
            path = self.store.client.download_artifacts(trial.run_id, "markers.parquet", folder)
            return [str(gene) for gene in pd.read_parquet(path)["gene"]]

    def score_history(self, trial: TrialRecord, key: str) -> list[tuple[int, float]]:
        """(epoch, value) of a metric, in order of the epochs."""
        points = self.store.client.get_metric_history(trial.run_id, key)
        return sorted((int(point.step), float(point.value)) for point in points)

    def fingerprint(self) -> str:
        """Of the data that the study was begun with."""
        run = self.store.client.get_run(self.run_id)
        return str(run.data.tags["mmlab.fingerprint"])

    def describe(self, records: list[TrialRecord], best: TrialRecord | None) -> None:
        """Write the summary that the study's page shows, and the best trial's metrics."""
        counts = Counter(str(record.outcome) for record in records)
        listed = ", ".join(f"{n} {outcome}" for outcome, n in sorted(counts.items()))
        lines = [
            f"**{self.spec.search.selector} on {self.spec.data.title}, "
            f"{self.spec.n_markers} markers:** {listed} trials. Scores are measured on "
            "validation cells; the locked test cells were not touched.",
            "",
        ]
        if best is not None:
            params = ", ".join(
                f"{name} {short(best.spec.params[name])}" for name in self.spec.search.parameters
            )
            lines += [f"**Best:** score {best.score:.4f} with {params}.", ""]
            self._keep_best(best)
        lines += ["| trial | selector | state | validation score |", "|---|---|---|---|"]
        ranked = sorted(records, key=_complete_and_best_first)
        for record in ranked[:10]:
            link = f"[{record.digest[:8]}](#/experiments/{self.experiment_id}/runs/{record.run_id})"
            score = "" if record.score is None else f"{record.score:.4f}"
            lines.append(f"| {link} | {record.selector} | {record.outcome} | {score} |")
        self.store.set_tags(self.run_id, {"mlflow.note.content": "\n".join(lines)})

    def _keep_best(self, best: TrialRecord) -> None:
        metrics = {
            f"best/{name.removeprefix('validation/')}": value
            for name, value in best.metrics.items()
            if name.startswith("validation/") and not name.endswith(("_std", "/loss"))
        }
        self.store.log_metrics(self.run_id, metrics, 0, int(time.time() * 1000))
        self.store.set_tags(self.run_id, {"mmlab.best": best.run_id})

    def close_open_trials(self) -> None:
        """Mark every trial that never ended as interrupted: none stays RUNNING."""
        for trial in self.trials():
            if trial.outcome not in ENDED and trial.outcome != Outcome.INTERRUPTED:
                close_trial(self.store, trial.run_id, Outcome.INTERRUPTED)

    def finish(self, complete: bool) -> None:
        """Close the parent run: FINISHED if all its trials ended, else KILLED."""
        self.close_open_trials()
        counts = Counter(trial.outcome for trial in self.trials())
        metrics = {f"trials/{outcome}": float(counts[outcome]) for outcome in sorted(ENDED)}
        self.store.log_metrics(self.run_id, metrics, 0, int(time.time() * 1000))
        self.store.close(self.run_id, "FINISHED" if complete else "KILLED")


def create_study(store: Store, spec: StudySpec, cells: Cells, command: str) -> StudyRun:
    """Open a new study: a parent run in the experiment of the dataset."""
    experiment_id = store.experiment(cells.name)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = f"tune-{cells.name}-{stamp}-{secrets.token_hex(2)}"
    tags = {
        "mmlab.kind": "study",
        "mmlab.study": name,
        "mmlab.selector": spec.search.selector,
        "mmlab.fingerprint": cells.fingerprint,
        "mmlab.spec": spec.model_dump_json(),
        "mmlab.command": command,
        **owner_tags(),
    }
    run_id = store.create_run(experiment_id, name, tags)
    store.log_params(
        run_id,
        {
            "dataset": cells.name,
            "selector": spec.search.selector,
            "n_markers": spec.n_markers,
            "trials": spec.trials,
            "replicates": spec.replicates,
            "seed": spec.seed,
            "baselines": ", ".join(spec.baselines),
        },
    )
    store.log_dataset(run_id, cells)
    content = spec.model_dump_json(indent=2) + "\n"
    store.log_files(run_id, lambda folder: _write(folder / "study.json", content))
    return StudyRun(store, name, run_id, experiment_id, spec)


def open_study(store: Store, name: str) -> StudyRun:
    """Find a study by its name or by the id of its parent run, to read it.

    Raises
    ------
    UserError
        No such study in this store; the latest ones are named.
    """
    runs = list(store.search(_STUDIES)) if store.exists else []
    for run in runs:
        if name in (run.data.tags["mmlab.study"], run.info.run_id):
            return _study(store, run)
    latest = ", ".join(run.data.tags["mmlab.study"] for run in runs[-5:]) or "none"
    raise UserError(f"study {name!r} is not in {store.uri}; the latest studies there: {latest}.")


def claim_study(study: StudyRun) -> None:
    """Take over a study to go on with it.

    Raises
    ------
    UserError
        Another process is at work on it, or was on another machine and never closed it.
    """
    run = study.store.client.get_run(study.run_id)
    tags = run.data.tags
    if run.info.status == "RUNNING" and owner_is_alive(tags):
        raise UserError(
            f"study {study.name} is being worked on by process {tags.get('mmlab.pid')} on "
            f"{tags.get('mmlab.host')}; wait for it, or end that process first."
        )
    study.store.reopen(study.run_id)
    study.store.set_tags(study.run_id, owner_tags())
    study.close_open_trials()


def close_abandoned(store: Store) -> None:
    """Mark as KILLED the runs whose process on this machine is gone: studies, their trials."""
    for run in store.search("attributes.status = 'RUNNING'"):
        tags = run.data.tags
        if "mmlab.pid" not in tags or owner_is_alive(tags):
            continue
        if tags["mmlab.kind"] == "study":
            _study(store, run).finish(complete=False)
        else:
            close_trial(store, run.info.run_id, Outcome.INTERRUPTED)


def _study(store: Store, run: Run) -> StudyRun:
    spec = StudySpec.model_validate_json(run.data.tags["mmlab.spec"])
    name = run.data.tags["mmlab.study"]
    return StudyRun(store, name, run.info.run_id, run.info.experiment_id, spec)


def _write(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")


def _complete_and_best_first(record: TrialRecord) -> tuple[bool, float]:
    score = -math.inf if record.score is None else record.score
    return record.outcome != Outcome.COMPLETE, -score


def short(value: object) -> str:
    """A parameter's value for people: four digits of a float."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)

"""Manifest of a report: trials with their metrics, data, versions and file hashes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmlab.comparison.result_table import is_metric
from mmlab.errors import UserError
from mmlab.spec.base import Spec
from mmlab.spec.search import SearchSpec
from mmlab.spec.trial import DataSpec, TrialSpec
from mmlab.system.files import file_hash
from mmlab.tracking import StudyRun, TrialRecord

MANIFEST = "manifest.json"
#: Minimum tolerance of a metric: rounding differs between machines.
ROUNDING = 1e-6
#: Tolerance of a metric, in sample standard deviations over the replicates of a method.
TOLERANCE_SDS = 3.0


class TrialEntry(Spec):
    """A trial of a report: specification, panel and metrics.

    Attributes
    ----------
    method, setting
        Its names in the tables.
    panel
        Gene indices, best first.
    tolerance
        By metric, the largest difference that a reproduction on another machine may have. Another
        processor rounds differently; over a long training, this can change a selected gene, as
        another seed would.
    """

    method: str
    setting: str
    digest: str
    spec: TrialSpec
    panel: list[int]
    metrics: dict[str, float]
    tolerance: dict[str, float]


class Manifest(Spec):
    """Manifest of a report.

    Attributes
    ----------
    study
        Name of the study.
    commands
        Commands that computed it.
    dataset, fingerprint
        Name and fingerprint of the data.
    environment
        From :func:`mmlab.system.environment.describe_environment`.
    commit
        Commit of mmlab that computed the study; empty if unknown.
    files
        SHA-256 of every file of the report, by its path in the folder.
    """

    study: str
    commands: list[str]
    data: DataSpec
    dataset: str
    fingerprint: str
    protocol_number: int
    environment: dict[str, Any]
    commit: str
    trials: list[TrialEntry]
    files: dict[str, str]

    def to_text(self) -> str:
        """Return the file's text: JSON whose last key, sha256, is the hash of all other keys."""
        content = self.model_dump(mode="json")
        hashed = _to_json(content)
        return _to_json(content | {"sha256": hashlib.sha256(hashed.encode()).hexdigest()})


def _to_json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, sort_keys=False, allow_nan=False) + "\n"


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of a report.

    Parameters
    ----------
    path
        The file, or the folder of the report.

    Raises
    ------
    UserError
        The file cannot be read, is not a manifest, or was changed since it was written.
    """
    if path.is_dir():
        path = path / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        content.pop("sha256")
        manifest = Manifest.model_validate(content)
        _require_inside(manifest.files, path.parent)
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}. Pass the manifest.json of a report."
        ) from error
    except (ValueError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} is not the manifest of a report, or it was changed. Write the report again "
            "with mmlab report."
        ) from error
    if manifest.to_text() != text:
        raise UserError(
            f"{path} was changed since the report was written. Write the report again with mmlab "
            "report."
        )
    return manifest


def _require_inside(files: Iterable[str], folder: Path) -> None:
    """Raise ``ValueError`` if a file of a report, or what it links to, is outside its folder."""
    root = os.path.realpath(folder)
    for name in files:
        if "\0" in name or not Path(os.path.realpath(folder / name)).is_relative_to(root):
            raise ValueError(f"{name!r} is outside the folder")


def changed_files(manifest: Manifest, folder: Path) -> list[str]:
    """Return one sentence for every file of a report that is missing or was changed."""
    problems = []
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif file_hash(path) != expected:
            problems.append(f"{name} was changed")
    return problems


def file_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by its relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in files}


def finite_metrics(values: dict[str, Any]) -> dict[str, float]:
    """Return the finite metrics among the values of a finished replicate or a trial."""
    metrics = {
        name: float(value)
        for name, value in values.items()
        if is_metric(name.removeprefix("validation/")) and isinstance(value, int | float)
    }
    return {name: value for name, value in metrics.items() if np.isfinite(value)}


def tolerances(metrics: Iterable[dict[str, float]]) -> dict[str, float]:
    """Return the tolerance of every metric, from the replicates of a method at one setting."""
    deviations = pd.DataFrame(list(metrics)).std(ddof=1).fillna(0.0)
    return {str(name): _tolerance(float(value)) for name, value in deviations.items()}


def _tolerance(standard_deviation: float) -> float:
    return max(TOLERANCE_SDS * standard_deviation, ROUNDING)


def replicate_entries(rows: pd.DataFrame, specs: dict[str, TrialSpec]) -> list[TrialEntry]:
    """Return the entries of finished replicates; ``specs`` are the trials by digest."""
    entries = []
    for (method, setting), group in rows.groupby(["method", "setting"], sort=False):
        records: Sequence[dict[Any, Any]] = group.to_dict(orient="records")
        all_metrics = [finite_metrics(record) for record in records]
        tolerance = tolerances(all_metrics)
        entries += [
            TrialEntry(
                method=str(method),
                setting=str(setting),
                digest=record["digest"],
                spec=specs[record["digest"]],
                panel=[int(gene) for gene in record["panel"]],
                metrics=metrics,
                tolerance={name: tolerance[name] for name in metrics},
            )
            for record, metrics in zip(records, all_metrics, strict=True)
        ]
    return entries


def search_entries(study: StudyRun[SearchSpec], records: Sequence[TrialRecord]) -> list[TrialEntry]:
    """Return the entries of complete trials of a search; metrics are means over replicates."""
    entries = []
    for record in records:
        metrics = finite_metrics(record.metrics)
        deviations = {name: record.metrics.get(f"{name}_std", 0.0) for name in metrics}
        entries.append(
            TrialEntry(
                method=record.selector,
                setting="search",
                digest=record.digest,
                spec=record.spec,
                panel=study.panel_indices(record),
                metrics=metrics,
                tolerance={name: _tolerance(value) for name, value in deviations.items()},
            )
        )
    return entries

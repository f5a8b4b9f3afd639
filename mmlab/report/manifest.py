"""What a report rests on: every trial with its numbers, the data, the versions, the files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from mmlab.comparison.result_table import is_metric
from mmlab.errors import UserError
from mmlab.spec.base import Spec
from mmlab.spec.search import SearchSpec
from mmlab.spec.trial import DataSpec, TrialSpec
from mmlab.system.files import file_hash
from mmlab.tracking import StudyRun, TrialRecord

MANIFEST = "manifest.json"
#: Numbers this close are within rounding, on whatever machine they were computed.
ROUNDING = 1e-6
#: Standard deviations over a method's replicates that a number may move by on another machine.
SPREADS = 3.0


class TrialEntry(Spec):
    """A trial of a report: what it was, and what it gave.

    ``method`` and ``setting`` name it in the tables; ``panel`` are gene indices, best first;
    ``tolerance`` says, for each metric, by how much the number may differ elsewhere: training on
    another processor rounds otherwise, and a long training can carry that into the choice of a
    gene, as another seed would.
    """

    method: str
    setting: str
    digest: str
    spec: TrialSpec
    panel: list[int]
    metrics: dict[str, float]
    tolerance: dict[str, float]


class Manifest(Spec):
    """All that a report rests on."""

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
        """The file: JSON that ends with the hash of everything above it."""
        content = self.model_dump(mode="json")
        body = _canonical(content)
        return _canonical(content | {"sha256": hashlib.sha256(body.encode()).hexdigest()})


def _canonical(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, sort_keys=False, allow_nan=False) + "\n"


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises
    ------
    UserError
        There is none, or it is not to the byte what a report has written.
    """
    if path.is_dir():
        path = path / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        content.pop("sha256")
        manifest = Manifest.model_validate(content)
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; give the manifest.json of a report."
        ) from error
    except (ValueError, KeyError, AttributeError, ValidationError) as error:
        raise UserError(f"{path} is not the manifest of a report, or was changed.") from error
    if manifest.to_text() != text:
        raise UserError(f"{path} was changed since the report was written.")
    return manifest


def changed_files(manifest: Manifest, folder: Path) -> list[str]:
    """Files of a report that are missing, or not those that were written."""
    found = []
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif file_hash(path) != expected:
            found.append(f"{name} was changed")
    return found


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder, by its path in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in files}


def numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """The finite metrics among the values of a row or of a result."""
    known = {
        name: float(value)
        for name, value in metrics.items()
        if is_metric(name.removeprefix("validation/")) and isinstance(value, int | float)
    }
    return {name: value for name, value in known.items() if np.isfinite(value)}


def tolerances(entries: Iterable[dict[str, float]]) -> dict[str, float]:
    """Tolerance of every metric from the replicates of a method at one setting."""
    table = pd.DataFrame(list(entries))
    spread = table.std(ddof=1).fillna(0.0)
    return {str(name): max(SPREADS * float(value), ROUNDING) for name, value in spread.items()}


def entries(rows: pd.DataFrame, specs: dict[str, TrialSpec]) -> list[TrialEntry]:
    """The trials of a table of replicates; ``specs`` has those of its digests."""
    found = []
    for (method, setting), group in rows.groupby(["method", "setting"], sort=False):
        records: Sequence[dict[Any, Any]] = group.to_dict(orient="records")
        measured = [numbers(record) for record in records]
        tolerance = tolerances(measured)
        found += [
            TrialEntry(
                method=str(method),
                setting=str(setting),
                digest=record["digest"],
                spec=specs[record["digest"]],
                panel=[int(gene) for gene in record["panel"]],
                metrics=metrics,
                tolerance={name: tolerance[name] for name in metrics},
            )
            for record, metrics in zip(records, measured, strict=True)
        ]
    return found


def search_entries(study: StudyRun[SearchSpec], records: Sequence[TrialRecord]) -> list[TrialEntry]:
    """The trials of a search that ran to their end; their numbers are means over replicates."""
    found = []
    for record in records:
        metrics = numbers(record.metrics)
        spread = {name: record.metrics.get(f"{name}_std", 0.0) for name in metrics}
        found.append(
            TrialEntry(
                method=record.selector,
                setting="search",
                digest=record.digest,
                spec=record.spec,
                panel=study.panel_indices(record),
                metrics=metrics,
                tolerance={n: max(SPREADS * value, ROUNDING) for n, value in spread.items()},
            )
        )
    return found

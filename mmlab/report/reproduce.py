"""Reproduction of a report: compute its trials again and compare every metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from rich.console import Console

from mmlab.datasets import load_cells
from mmlab.errors import UserError
from mmlab.report.manifest import (
    MANIFEST,
    Manifest,
    TrialEntry,
    changed_files,
    finite_metrics,
    read_manifest,
)
from mmlab.schedule.submit import compute_trials
from mmlab.spec.protocol import PROTOCOL_NUMBER
from mmlab.spec.resources import Resources
from mmlab.system.environment import describe_environment
from mmlab.system.folders import restore_folder
from mmlab.trial.result import TrialResult


class Verdict(StrEnum):
    """Result of the comparison of a metric with its reproduction."""

    EQUAL = "equal"
    WITHIN = "within tolerance"
    DIFFERENT = "different"
    MISSING = "not computed"


@dataclass(frozen=True)
class ReproducedMetric:
    """A metric of a trial: the value in the report and the value computed again.

    Attributes
    ----------
    method, setting, digest
        The trial.
    before, now
        Value in the report, and value computed again; ``now`` is None if it was not computed.
    tolerance
        Largest accepted difference, see :class:`mmlab.report.manifest.TrialEntry`.
    """

    method: str
    setting: str
    digest: str
    metric: str
    before: float
    now: float | None
    tolerance: float

    @property
    def verdict(self) -> Verdict:
        """Whether the values are identical, within the tolerance, or different."""
        if self.now is None:
            return Verdict.MISSING
        if self.now == self.before:
            return Verdict.EQUAL
        close = abs(self.now - self.before) <= self.tolerance
        return Verdict.WITHIN if close else Verdict.DIFFERENT


@dataclass(frozen=True)
class Reproduction:
    """Outcome of a reproduction.

    Attributes
    ----------
    manifest
        Manifest of the report.
    changed
        Changed or missing files, and changed data, one sentence each. If there are any, no trial
        is computed.
    versions
        Differences between the environments, one sentence each. They do not fail a reproduction.
    numbers
        Every metric of the trials that were computed again.
    same_panels, panels
        Number of trials with an identical panel, and of all trials that were computed again.
    failed
        By digest, the reason why a trial could not be computed.
    """

    manifest: Manifest
    changed: list[str]
    versions: list[str]
    numbers: list[ReproducedMetric]
    same_panels: int
    panels: int
    failed: dict[str, str]

    @property
    def reproduced(self) -> bool:
        """Whether files and data are unchanged and every metric is within its tolerance."""
        accepted = (Verdict.EQUAL, Verdict.WITHIN)
        all_accepted = all(metric.verdict in accepted for metric in self.numbers)
        return not self.changed and not self.failed and all_accepted


def reproduce(
    path: Path,
    resources: Resources,
    console: Console,
    *,
    only: Sequence[str] = (),
    quick: bool = False,
    data: Path | None = None,
) -> Reproduction:
    """Check the files, data and versions of a report, then compute its trials again.

    Parameters
    ----------
    path
        ``manifest.json`` of the report, or its folder.
    only
        Methods to compute, by their names in the report; empty: all methods.
    quick
        Compute only the first replicate of every method and setting.
    data
        New path of the user's data file; default: the path in the manifest.

    Raises
    ------
    UserError
        The report cannot be read, a method is unknown, or the data cannot be loaded.
    """
    restore_folder(path.parent if path.name == MANIFEST else path)
    manifest = read_manifest(path)
    folder = path if path.is_dir() else path.parent
    changed = changed_files(manifest, folder)
    trials = _select_trials(manifest, only, quick)
    source = manifest.data
    if data is not None:
        if source.path is None:
            raise UserError(
                f"--data: the report uses the dataset {source.name}, not a file. Leave out --data."
            )
        source = source.model_copy(update={"path": str(data.absolute())})
    cells = load_cells(source)
    if cells.fingerprint != manifest.fingerprint:
        changed.append(
            f"the data of {manifest.dataset} have changed: their fingerprint was "
            f"{manifest.fingerprint[:12]} and is now {cells.fingerprint[:12]}"
        )
    if changed:
        # Changed files or data are no reference for a comparison.
        return Reproduction(manifest, changed, _version_differences(manifest), [], 0, 0, {})
    console.print(f"computing {len(trials)} of {len(manifest.trials)} trials again")
    ended = compute_trials(
        f"reproducing {manifest.study}",
        [(trial.method, trial.spec) for trial in trials],
        cells,
        resources,
        console,
    )
    metrics: list[ReproducedMetric] = []
    same_panels, failed = 0, dict[str, str]()
    for trial in trials:
        ended_trial = ended.get(trial.digest)
        result = None if ended_trial is None else ended_trial.result
        if ended_trial is None:
            failed[trial.digest] = "its digest has changed"
        elif result is None:
            failed[trial.digest] = ended_trial.reason
        else:
            same_panels += _panel_indices(result) == trial.panel
        metrics += _compare_metrics(trial, result)
    versions = _version_differences(manifest)
    return Reproduction(manifest, changed, versions, metrics, same_panels, len(trials), failed)


def _panel_indices(result: TrialResult) -> list[int]:
    """Return the gene indices of a panel, best first."""
    return [int(gene) for gene in result.panel["gene_index"]]


def _select_trials(manifest: Manifest, only: Sequence[str], quick: bool) -> list[TrialEntry]:
    known = dict.fromkeys(trial.method for trial in manifest.trials)
    unknown = [name for name in only if name not in known]
    if unknown:
        raise UserError(
            f"--only {unknown[0]}: the report has no such method. Methods: {', '.join(known)}."
        )
    trials = [trial for trial in manifest.trials if not only or trial.method in only]
    if not quick:
        return trials
    first: dict[tuple[str, str], TrialEntry] = {}
    for trial in trials:
        first.setdefault((trial.method, trial.setting), trial)
    return list(first.values())


def _compare_metrics(trial: TrialEntry, result: TrialResult | None) -> list[ReproducedMetric]:
    now: dict[str, Any] = {} if result is None else finite_metrics(result.metrics)
    return [
        ReproducedMetric(
            method=trial.method,
            setting=trial.setting,
            digest=trial.digest,
            metric=metric,
            before=before,
            now=now.get(metric),
            tolerance=trial.tolerance[metric],
        )
        for metric, before in trial.metrics.items()
    ]


def _version_differences(manifest: Manifest) -> list[str]:
    """Return the differences between this environment and the report's, one sentence each."""
    current, recorded = describe_environment(), manifest.environment
    differences = [
        f"{name} is {version}, was {recorded['packages'].get(name, 'not installed')}"
        for name, version in current["packages"].items()
        if recorded["packages"].get(name) != version
    ]
    differences += [
        f"{key} is {current[key]}, was {recorded.get(key)}"
        for key in ("mmlab", "python", "platform", "gpus")
        if current[key] != recorded.get(key)
    ]
    if current["arithmetic"] != recorded.get("arithmetic"):
        differences.append(
            f"arithmetic is {current['arithmetic']}, was {recorded.get('arithmetic')}: sums are "
            "rounded differently, so the panel of a trained model can differ in a few genes"
        )
    if manifest.protocol_number != PROTOCOL_NUMBER:
        differences.append(f"mmlab's protocol is {PROTOCOL_NUMBER}, was {manifest.protocol_number}")
    return differences

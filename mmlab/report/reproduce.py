"""Compute a report again, and compare it number by number."""

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
    Manifest,
    TrialEntry,
    changed_files,
    numbers,
    read_manifest,
)
from mmlab.schedule import Resources, compute_trials
from mmlab.spec.protocol import PROTOCOL_NUMBER
from mmlab.system.environment import describe_environment
from mmlab.trial.result import TrialResult


class Verdict(StrEnum):
    """How a number, or a panel, came out when it was computed again."""

    EQUAL = "equal"
    WITHIN = "within tolerance"
    DIFFERENT = "different"
    MISSING = "not computed"


@dataclass(frozen=True)
class Number:
    """A number of a report beside the one computed again; None where it was not."""

    method: str
    setting: str
    digest: str
    metric: str
    before: float
    now: float | None
    tolerance: float

    @property
    def verdict(self) -> Verdict:
        """Equal to the last bit, within the stated tolerance, or not."""
        if self.now is None:
            return Verdict.MISSING
        if self.now == self.before:
            return Verdict.EQUAL
        close = abs(self.now - self.before) <= self.tolerance
        return Verdict.WITHIN if close else Verdict.DIFFERENT


@dataclass(frozen=True)
class Reproduction:
    """What came of computing a report again.

    Attributes
    ----------
    manifest
        Of the report.
    changed
        Files that are not those that were written, and data that are not the same.
    versions
        What differs in the environment, a sentence each; this alone fails nothing.
    numbers
        Every metric of every trial that was computed again.
    same_panels, panels
        Trials whose panel is the same, gene by gene, and all.
    failed
        Reason by digest of the trials that did not end well.
    """

    manifest: Manifest
    changed: list[str]
    versions: list[str]
    numbers: list[Number]
    same_panels: int
    panels: int
    failed: dict[str, str]

    @property
    def holds(self) -> bool:
        """Whether nothing was changed, and every number is equal or within its tolerance."""
        good = (Verdict.EQUAL, Verdict.WITHIN)
        return not self.changed and not self.failed and all(n.verdict in good for n in self.numbers)


def reproduce(
    path: Path,
    resources: Resources,
    console: Console,
    *,
    only: Sequence[str] = (),
    quick: bool = False,
    data: Path | None = None,
) -> Reproduction:
    """Check a report's files, data and versions, and compute its trials again.

    Parameters
    ----------
    path
        Its ``manifest.json``, or its folder.
    only
        Methods, by their names in the report; empty computes all.
    quick
        The first replicate of every method and setting alone.
    data
        Where the user's own file lies now; default: where it was.

    Raises
    ------
    UserError
        No such report, an unknown method, or data that cannot be had.
    """
    manifest = read_manifest(path)
    folder = path if path.is_dir() else path.parent
    changed = changed_files(manifest, folder)
    trials = _chosen(manifest, only, quick)
    source = manifest.data
    if data is not None:
        if source.path is None:
            raise UserError(f"--data: the report is about the dataset {source.name}, not a file.")
        source = source.model_copy(update={"path": str(data.absolute())})
    cells = load_cells(source)
    if cells.fingerprint != manifest.fingerprint:
        changed.append(
            f"the data of {manifest.dataset} are other ones: fingerprint "
            f"{cells.fingerprint[:12]} instead of {manifest.fingerprint[:12]}"
        )
    if changed:
        # What was changed cannot be what is compared with.
        return Reproduction(manifest, changed, _versions(manifest), [], 0, 0, {})
    console.print(f"computing {len(trials)} of {len(manifest.trials)} trials again")
    ended = compute_trials(
        f"reproducing {manifest.study}",
        [(trial.method, trial.spec) for trial in trials],
        cells,
        resources,
        console,
    )
    found: list[Number] = []
    same, failed = 0, dict[str, str]()
    for trial in trials:
        done = ended.get(trial.digest)
        result = None if done is None else done.result
        if result is None:
            failed[trial.digest] = "its digest is another one" if done is None else done.reason
        else:
            same += consensus(result) == trial.panel
        found += _compare(trial, result)
    return Reproduction(manifest, changed, _versions(manifest), found, same, len(trials), failed)


def consensus(result: TrialResult) -> list[int]:
    """Gene indices of a result's panel, best first."""
    return [int(gene) for gene in result.panel["gene_index"]]


def _chosen(manifest: Manifest, only: Sequence[str], quick: bool) -> list[TrialEntry]:
    known = dict.fromkeys(trial.method for trial in manifest.trials)
    unknown = [name for name in only if name not in known]
    if unknown:
        raise UserError(
            f"--only {unknown[0]}: the report has no such method; it has {', '.join(known)}."
        )
    trials = [trial for trial in manifest.trials if not only or trial.method in only]
    if not quick:
        return trials
    first: dict[tuple[str, str], TrialEntry] = {}
    for trial in trials:
        first.setdefault((trial.method, trial.setting), trial)
    return list(first.values())


def _compare(trial: TrialEntry, result: TrialResult | None) -> list[Number]:
    now: dict[str, Any] = {} if result is None else numbers(result.metrics)
    place = trial.method, trial.setting, trial.digest
    return [
        Number(*place, metric, before, now.get(metric), trial.tolerance[metric])
        for metric, before in trial.metrics.items()
    ]


def _versions(manifest: Manifest) -> list[str]:
    here, there = describe_environment(), manifest.environment
    found = [
        f"{name} is {version}, was {there['packages'].get(name, 'not there')}"
        for name, version in here["packages"].items()
        if there["packages"].get(name) != version
    ]
    found += [
        f"{key} is {here[key]}, was {there.get(key)}"
        for key in ("mmlab", "python", "platform", "gpus")
        if here[key] != there.get(key)
    ]
    own, other = here["arithmetic"], there.get("arithmetic")
    if own != other:
        found.append(
            f"arithmetic is {own}, was {other}: sums are rounded in another way, so a panel that "
            "was trained can differ in a few genes"
        )
    if manifest.protocol_number != PROTOCOL_NUMBER:
        found.append(f"mmlab's protocol is {PROTOCOL_NUMBER}, was {manifest.protocol_number}")
    return found

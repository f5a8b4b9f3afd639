"""What a comparison consists of: the trials of its grid, and tables of the finished ones."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from mmlab.comparison.result_table import ResultRow, summarise_rows
from mmlab.comparison.robustness import robustness, with_clean_classifiers
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.selectors import get_selector
from mmlab.spec.comparison import NOISE_AXIS, ComparisonSpec, MethodSpec, Setting
from mmlab.spec.resources import Resources
from mmlab.spec.trial import TrialSpec
from mmlab.tracking import Outcome, StudyRun, finished_rows, study_rows
from mmlab.trial.defaults import resolve_spec

#: Replicates of a method that share a GPU's every step, at most; they are kept when all are done.
_TRAINED_AS_ONE = 10


@dataclass(frozen=True)
class PlannedTrial:
    """A cell of the grid: one replicate of one method at one setting, resolved."""

    method: MethodSpec
    setting: Setting
    spec: TrialSpec
    digest: str

    def title(self, of: ComparisonSpec) -> str:
        """Method, setting (where there are several) and replicate, for people."""
        setting = [self.setting.name] if len(of.settings) > 1 else []
        return ", ".join([self.method.title, *setting, f"replicate {self.spec.first_replicate}"])


@dataclass(frozen=True)
class ComparisonResult:
    """What a comparison has found.

    Attributes
    ----------
    study
        The study in its store.
    grid
        All its trials.
    replicates
        A row a finished replicate, see :mod:`mmlab.comparison.result_table`, with the columns ``method`` and
        ``setting``.
    summary
        From :func:`mmlab.comparison.result_table.summarise_rows`.
    robustness
        From :func:`mmlab.comparison.robustness.robustness`; empty where the axis is not noise.
    failed
        Reason by "method, setting, replicate" of the trials that failed.
    unsent
        Trials that the tracking store does not have; they wait on disk.
    """

    study: StudyRun[ComparisonSpec]
    grid: list[PlannedTrial]
    replicates: pd.DataFrame
    summary: pd.DataFrame
    robustness: pd.DataFrame
    failed: dict[str, str]
    unsent: int


def plan_trials(spec: ComparisonSpec, cells: Cells) -> list[PlannedTrial]:
    """All cells of the grid, first replicates first.

    The control that takes all genes is the same trial, of one digest, at every panel size.

    Raises
    ------
    UserError
        Every method or setting that cannot be run.
    """
    found: list[PlannedTrial] = []
    problems: dict[str, dict[str, None]] = {}
    most = max(method.replicates or spec.replicates for method in spec.methods)
    for replicate in range(most):
        for method in spec.methods:
            if replicate >= (method.replicates or spec.replicates):
                continue
            for setting in spec.settings:
                try:
                    trial = resolve_spec(spec.trial(method, setting, replicate), cells)
                except UserError as error:
                    # Many methods may have the same one.
                    own = f"{method.selector} on {cells.name}: "
                    reason = str(error).removeprefix(own).rstrip(".")
                    problems.setdefault(reason, {})[method.selector] = None
                    continue
                digest = trial.digest(cells.fingerprint)
                found.append(PlannedTrial(method, setting, trial, digest))
    if problems:
        listed = [
            f"{', '.join(methods)} on {cells.name}: {reason}"
            for reason, methods in problems.items()
        ]
        raise UserError("; ".join(listed) + ".")
    return found


class ResultTables(NamedTuple):
    """The tables of a :class:`ComparisonResult`."""

    replicates: pd.DataFrame
    summary: pd.DataFrame
    robustness: pd.DataFrame


def tabulate(
    spec: ComparisonSpec,
    grid: Sequence[PlannedTrial],
    by_digest: Mapping[str, ResultRow],
    cells: Cells,
) -> ResultTables:
    """Tables of what is finished of a grid."""
    order = {method.title: place for place, method in enumerate(spec.methods)}
    places = {setting.name: place for place, setting in enumerate(spec.settings)}

    def position(trial: PlannedTrial) -> tuple[int, int, int]:
        here = order[trial.method.title], places[trial.setting.name]
        return (*here, trial.spec.first_replicate)

    # The control that takes all genes stands beside the panels of each size.
    finished = [
        row
        | {
            "method": trial.method.title,
            "setting": trial.setting.name,
            "n_markers": trial.setting.n_markers,
        }
        for trial in sorted(grid, key=position)
        if (row := by_digest.get(trial.digest)) is not None
    ]
    if spec.axis == NOISE_AXIS:
        finished = [with_clean_classifiers(row) for row in finished]
    table = pd.DataFrame(finished)
    if table.empty:
        return ResultTables(table, table, table)
    summary = summarise_rows(table, len(cells.genes))
    curves = robustness(table, spec.seed) if spec.axis == NOISE_AXIS else pd.DataFrame()
    return ResultTables(table, summary, curves)


def read_comparison(study: StudyRun[ComparisonSpec], cells: Cells) -> ComparisonResult:
    """What a store holds of a comparison; nothing is computed, nothing written."""
    grid = plan_trials(study.spec, cells)
    wanted = {trial.digest: trial for trial in grid}
    # Rows that came from a file have no runs of their own.
    rows = {d: r for d, r in study_rows(study.store, study.run_id).items() if d in wanted}
    missing = wanted.keys() - rows.keys()
    rows |= dict(finished_rows(study.store, study.experiment_id, missing))
    failed = {
        wanted[t.digest].title(study.spec): t.reason
        for t in study.trials()
        if t.outcome == Outcome.FAILED and t.digest in wanted and t.digest not in rows
    }
    return ComparisonResult(study, grid, *tabulate(study.spec, grid, rows, cells), failed, 0)


def group_trials(missing: list[PlannedTrial], resources: Resources) -> list[list[PlannedTrial]]:
    """What is computed at a time: each replicate alone, but for two exceptions.

    All settings that differ in labels a method ignores are one part: it is fitted once. On a GPU
    replicates, and levels of noise, are trained as one. Alone a replicate is the same to the last
    bit, whatever else is missing; in a pack it is so only up to rounding, which a long training can
    carry into the choice of a gene.
    """
    together: dict[tuple[object, ...], list[PlannedTrial]] = defaultdict(list)
    in_packs: Counter[tuple[object, ...]] = Counter()
    for trial in sorted(missing, key=_first_replicates_first):
        selector, spec = get_selector(trial.spec.selector), trial.spec
        packed = resources.gpus_per_trial > 0 and selector.trains_in_epochs
        alike: tuple[object, ...] = (trial.method.title, spec.n_markers, repr(spec.params))
        if not selector.supervised:
            alike += (spec.first_replicate // (_TRAINED_AS_ONE if packed else 1),)
        elif packed:
            # The next block begins where this one is full.
            in_packs[alike] += 1
            alike += ((in_packs[alike] - 1) // _TRAINED_AS_ONE,)
        else:
            alike += (trial.setting.name, spec.first_replicate)
        together[alike].append(trial)
    # Soon each method has shown how long it takes.
    return sorted(together.values(), key=lambda part: _first_replicates_first(part[0]))


def _first_replicates_first(trial: PlannedTrial) -> tuple[int, int]:
    return trial.spec.first_replicate, trial.setting.step

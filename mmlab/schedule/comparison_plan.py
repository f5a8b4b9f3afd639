"""The planned trials of a comparison, and the tables of its results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from mmlab.comparison.result_table import ResultRow, make_row, summarise_rows
from mmlab.comparison.robustness import fill_clean_metrics, robustness_metrics, robustness_table
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError, join_problems
from mmlab.selectors import get_selector
from mmlab.spec.comparison import NOISE_AXIS, ComparisonSpec, MethodSpec, Setting
from mmlab.spec.trial import TrialSpec
from mmlab.tracking import StudyRun, find_finished_replicates, read_study_replicates
from mmlab.trial.defaults import resolve_spec
from mmlab.trial.outcome import Outcome


@dataclass(frozen=True)
class PlannedTrial:
    """A trial of a comparison: one replicate of one method at one setting, defaults filled in."""

    method: MethodSpec
    setting: Setting
    spec: TrialSpec
    digest: str

    def title(self, comparison: ComparisonSpec) -> str:
        """Return a readable name: method, setting (if there are several) and replicate."""
        setting = [self.setting.name] if len(comparison.settings) > 1 else []
        return ", ".join([self.method.title, *setting, f"replicate {self.spec.first_replicate}"])


@dataclass(frozen=True)
class ComparisonResult:
    """The results of a comparison.

    Attributes
    ----------
    study
        The study in the tracking store.
    trials
        All planned trials.
    replicates
        One row per finished replicate, see :mod:`mmlab.comparison.result_table`, with the
        additional columns ``method`` and ``setting``.
    summary
        From :func:`mmlab.comparison.result_table.summarise_rows`.
    robustness
        From :func:`mmlab.comparison.robustness.robustness_table`; empty unless the axis is noise.
    failed
        Reasons of the failed trials; the keys are "method, setting, replicate".
    unsent, waiting_in
        Number of ended trials that the tracking store did not accept, and where they are kept.
    rows_error
        Why the file of finished replicates could not be written; empty if it was.
    rescued
        Whether the local disk did not accept them, either; the caller was told where they are.
    umaps
        UMAPs of the panels by method (:func:`mmlab.comparison.panel_umaps.panel_umaps`); empty
        unless the specification asks for them, and in results that are read from the store.
    leader
        Method with the highest mean kNN accuracy; None if there is none, and in results that are
        read from the store.
    """

    study: StudyRun[ComparisonSpec]
    trials: list[PlannedTrial]
    replicates: pd.DataFrame
    summary: pd.DataFrame
    robustness: pd.DataFrame
    failed: dict[str, str]
    unsent: int
    waiting_in: str = ""
    rows_error: str = ""
    rescued: bool = False
    umaps: dict[str, Figure] = field(default_factory=dict)
    leader: str | None = None


def comparison_name(spec: ComparisonSpec, cells: Cells) -> str:
    """Return the name of the study: the same specification on the same cells is the same study."""
    return f"{spec.study}-{cells.name}-{spec.digest(cells.fingerprint)[:8]}"


def plan_trials(spec: ComparisonSpec, cells: Cells) -> list[PlannedTrial]:
    """Return all trials of a comparison, ordered by replicate.

    The control that takes all genes is the same trial, with the same digest, at every panel size.

    Raises
    ------
    UserError
        A method or setting cannot be run; the message lists all of them.
    """
    _require_known({method.selector: None for method in spec.methods})
    planned: list[PlannedTrial] = []
    problems: dict[str, dict[str, None]] = {}
    n_replicates = max(method.replicates or spec.replicates for method in spec.methods)
    for replicate in range(n_replicates):
        for method in spec.methods:
            if replicate >= (method.replicates or spec.replicates):
                continue
            for setting in spec.settings:
                try:
                    trial = resolve_spec(spec.trial(method, setting, replicate), cells)
                except UserError as error:
                    # Several methods may have the same problem: list it once.
                    prefix = f"{method.selector} on {cells.name}: "
                    reason = str(error).removeprefix(prefix).rstrip(".")
                    problems.setdefault(reason, {})[method.selector] = None
                    continue
                digest = trial.digest(cells.fingerprint)
                planned.append(PlannedTrial(method, setting, trial, digest))
    if problems:
        listed = [
            f"{', '.join(methods)} on {cells.name}: {reason}"
            for reason, methods in problems.items()
        ]
        raise UserError(join_problems(listed))
    return planned


def _require_known(names: Iterable[str]) -> None:
    """Raise ``UserError`` with all names that are no method's."""
    unknown = []
    for name in names:
        try:
            get_selector(name)
        except UserError as error:
            unknown.append(str(error))
    if unknown:
        raise UserError(join_problems(unknown))


class ResultTables(NamedTuple):
    """The tables of a :class:`ComparisonResult`."""

    replicates: pd.DataFrame
    summary: pd.DataFrame
    robustness: pd.DataFrame

    def of_method(self, title: str) -> ResultTables:
        """Return the part of a method in all tables."""
        return ResultTables(*(t[t["method"] == title] if len(t) else t for t in self))

    @property
    def extra_metrics(self) -> dict[str, float]:
        """Metrics over all settings, of the tables of one method."""
        return robustness_metrics(self.robustness) if len(self.robustness) else {}


def tabulate(
    spec: ComparisonSpec,
    trials: Sequence[PlannedTrial],
    by_digest: Mapping[str, ResultRow],
    cells: Cells,
) -> ResultTables:
    """Build the tables of the finished replicates, sorted by method, setting and replicate.

    ``by_digest`` contains the finished replicates, in ``trials`` or not.
    """
    method_index = {method.title: index for index, method in enumerate(spec.methods)}
    setting_index = {setting.name: index for index, setting in enumerate(spec.settings)}

    def position(trial: PlannedTrial) -> tuple[int, int, int]:
        return (
            method_index[trial.method.title],
            setting_index[trial.setting.name],
            trial.spec.first_replicate,
        )

    # The control that takes all genes is listed at every panel size, with that size.
    finished = [
        row
        | {
            "dataset": trial.spec.data.title,
            "method": trial.method.title,
            "setting": trial.setting.name,
            "n_markers": trial.setting.n_markers,
        }
        for trial in sorted(trials, key=position)
        if (row := by_digest.get(trial.digest)) is not None
    ]
    if spec.axis == NOISE_AXIS:
        finished = [fill_clean_metrics(row) for row in finished]
    table = pd.DataFrame(finished)
    if table.empty:
        return ResultTables(table, table, table)
    summary = summarise_rows(table, len(cells.genes))
    curves = robustness_table(table) if spec.axis == NOISE_AXIS else pd.DataFrame()
    return ResultTables(table, summary, curves)


def read_comparison(study: StudyRun[ComparisonSpec], cells: Cells) -> ComparisonResult:
    """Read the results of a comparison from the tracking store, without computing or writing."""
    trials = plan_trials(study.spec, cells)
    planned = {trial.digest: trial for trial in trials}
    # Replicates taken from a file of finished replicates have a row in the table, but no run.
    rows = {
        d: r for d, r in read_study_replicates(study.store, study.run_id).items() if d in planned
    }
    missing = planned.keys() - rows.keys()
    for digest, row in find_finished_replicates(study.store, study.experiment_id, missing):
        # The table of a single trial contains only its results.
        rows[digest] = make_row(planned[digest].spec, digest, cells.fingerprint, row)
    failed = {
        planned[t.digest].title(study.spec): t.reason
        for t in study.trials()
        if t.outcome == Outcome.FAILED and t.digest in planned and t.digest not in rows
    }
    return ComparisonResult(study, trials, *tabulate(study.spec, trials, rows, cells), failed, 0)

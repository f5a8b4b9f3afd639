"""What a promotion will do: candidates, competing methods, comparisons. Nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from mmlab.champion.candidates import rank_candidates
from mmlab.champion.contenders import compared_methods
from mmlab.champion.decision import Contenders
from mmlab.datasets import load_cells
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.schedule.cluster import require_machine
from mmlab.schedule.comparison_plan import comparison_name, plan_trials
from mmlab.schedule.study_size import check_size
from mmlab.spec.comparison import ComparisonSpec, MethodSpec
from mmlab.spec.constraints import constraints_key
from mmlab.spec.resources import Resources
from mmlab.spec.search import SearchSpec
from mmlab.tracking import (
    Champion,
    PromotionRun,
    StudyRun,
    TrackingStore,
    TrialRecord,
    find_champion,
    open_study,
    unfinished_promotions,
)
from mmlab.trial.outcome import Outcome


@dataclass(frozen=True)
class PromotionPlan:
    """What a promotion evaluates.

    Attributes
    ----------
    study, cells
        The search and its data.
    previous
        The champion before the promotion, also if it is one of other data; None if there is none.
    candidates
        One row per candidate, see :func:`mmlab.champion.candidates.rank_candidates`.
    contenders
        The methods that compete.
    locked, paper
        Comparisons of the protocols ``locked`` and ``paper``.
    """

    study: StudyRun[SearchSpec]
    cells: Cells
    previous: Champion | None
    candidates: pd.DataFrame
    contenders: Contenders
    locked: ComparisonSpec
    paper: ComparisonSpec

    @property
    def comparisons(self) -> tuple[str, ...]:
        """Names of the studies of the two comparisons."""
        return tuple(comparison_name(spec, self.cells) for spec in (self.locked, self.paper))

    def check(self, store: TrackingStore, resources: Resources) -> None:
        """Raise ``UserError`` if a comparison cannot be run."""
        for spec in (self.locked, self.paper):
            check_size(spec.n_trials, store)
            plan_trials(spec, self.cells)
        require_machine(resources)


def open_search(name: str, store: TrackingStore) -> tuple[StudyRun[SearchSpec], Cells]:
    """Return a search and its cells.

    Raises
    ------
    UserError
        The study is unknown or not a search, or its data have changed.
    """
    found = open_study(store, name)
    if not isinstance(found.spec, SearchSpec):
        raise UserError(
            f"study {found.name} is a {found.spec.study}: only a search (mmlab tune) has "
            "configurations to promote. Pass the name of a search."
        )
    study = found.with_spec(found.spec)
    cells = load_cells(study.spec.data)
    study.require_data(cells, "run the search again on these data")
    return study, cells


def plan_promotion(
    study: StudyRun[SearchSpec],
    cells: Cells,
    objectives: Sequence[str],
    baselines: Sequence[str],
    replicates: int,
) -> tuple[PromotionPlan, PromotionRun | None]:
    """Plan a promotion, see :func:`mmlab.champion.promote.promote` for the parameters.

    Returns
    -------
    The plan, and the interrupted promotion that had the same plan; None if there is none. The
    latter may have registered its champion already: it competes with the champion before.

    Raises
    ------
    UserError
        An objective or a method is unknown, or no trial is complete.
    """
    records = _complete_trials(study)
    candidates = rank_candidates(study, records, cells, objectives)
    by_digest = {record.digest: record for record in records}
    trials = [by_digest[str(digest)] for digest in candidates["digest"]]

    def plan(previous: Champion | None) -> PromotionPlan:
        # A champion of other data cannot be compared.
        same_data = previous is not None and previous.fingerprint == cells.fingerprint
        rival = previous if same_data else None
        methods, contenders = compared_methods(study.spec, trials, rival, baselines, cells)
        specs = _comparison_specs(study, methods, replicates)
        return PromotionPlan(study, cells, previous, candidates, contenders, *specs)

    key = constraints_key(study.spec)
    present = find_champion(study.store, cells.name, study.spec.n_markers, key)
    for unfinished in unfinished_promotions(study, present):
        same = plan(unfinished.previous)
        if same.comparisons == unfinished.comparisons:
            return same, unfinished
    return plan(present), None


def _comparison_specs(
    study: StudyRun[SearchSpec], methods: list[MethodSpec], replicates: int
) -> tuple[ComparisonSpec, ComparisonSpec]:
    """Return the comparisons of the protocols ``locked`` and ``paper``."""
    paper = ComparisonSpec(
        data=study.spec.data,
        methods=methods,
        n_markers=[study.spec.n_markers],
        replicates=replicates,
        seed=study.spec.seed,
        **study.spec.constraint_fields,
    )
    return paper.model_copy(update={"protocol": "locked"}), paper


def _complete_trials(study: StudyRun[SearchSpec]) -> list[TrialRecord]:
    """Return the complete trials of the searched method; baselines are left out."""
    selector = study.spec.search.selector
    complete = [
        record
        for record in study.trials()
        if record.selector == selector and record.outcome == Outcome.COMPLETE
    ]
    if not complete:
        raise UserError(
            f"study {study.name} has no complete trial of {selector}: nothing to promote. Resume "
            f"the search with mmlab tune --resume {study.name}."
        )
    return complete

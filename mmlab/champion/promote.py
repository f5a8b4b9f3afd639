"""From a search to a champion: judge its best on cells that it never saw, keep the better one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from mmlab.champion.candidates import candidate_title, rank_candidates
from mmlab.champion.decision import DECISION_METRIC, decide, is_same_method
from mmlab.champion.study_file import write_study
from mmlab.datasets import load_cells
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.model import Model, fit_model
from mmlab.preprocessing.splits import replicate_split
from mmlab.schedule import ComparisonResult, Resources, run_comparison
from mmlab.spec.comparison import ComparisonSpec, MethodSpec
from mmlab.spec.constraints import constraints_key
from mmlab.spec.search import SearchSpec
from mmlab.spec.trial import TrialSpec
from mmlab.tracking import (
    Champion,
    Outcome,
    StudyRun,
    TrackingStore,
    TrialRecord,
    find_champion,
    open_study,
    record_promotion,
)


@dataclass(frozen=True)
class Promotion:
    """What a promotion has found.

    Attributes
    ----------
    study
        The search.
    candidates
        A row a configuration that was judged: digest, method, its objectives on validation cells.
    locked, paper
        Candidates, champion and baselines on the locked test cells, and on random splits of all
        cells as in the paper.
    champion
        The champion now.
    promoted
        Whether that is the first of the candidates.
    verdict
        Why, in a sentence or two.
    run_id
        Of the promotion, below the search.
    """

    study: StudyRun[SearchSpec]
    candidates: pd.DataFrame
    locked: ComparisonResult
    paper: ComparisonResult
    champion: Champion
    promoted: bool
    verdict: str
    run_id: str


def promote(
    study_name: str,
    store: TrackingStore,
    resources: Resources,
    console: Console,
    *,
    objectives: Sequence[str] = (),
    baselines: Sequence[str] = (),
    replicates: int = 10,
    folder: Path = Path("experiments/promoted"),
    command: str = "",
) -> Promotion:
    """Judge the best configuration of a search, and make it the champion if it is better.

    Parameters
    ----------
    study_name
        A finished or interrupted search.
    objectives
        Names of :data:`mmlab.champion.candidates.OBJECTIVES`: all configurations of their Pareto front are
        judged; empty judges the one with the highest validation score. That one stands for
        promotion.
    baselines
        Selectors, with their defaults, that are judged beside it.
    replicates
        Random splits.
    folder
        Gets the champion's benchmark under the paper's protocol: ``<dataset>.yaml``, with the key
        of the constraints before the ending, if there are any.

    Raises
    ------
    UserError
        Unknown study or objective, a comparison instead of a search, no finished trial, or data
        that have changed.
    """
    study, cells = _open_search(study_name, store)
    records = _finished(study)
    table = rank_candidates(study, records, cells, objectives)
    candidates = _methods(records, table["digest"])
    key = constraints_key(study.spec)
    before = find_champion(store, cells.name, study.spec.n_markers, key)
    previous = before if before and before.fingerprint == cells.fingerprint else None
    methods = _lineup(study, candidates, previous, baselines)
    locked, paper = (
        run_comparison(spec, store, resources, console, command=command)
        for spec in _comparisons(study, methods, replicates)
    )
    method = candidates[0]
    own = locked.replicates.query("method == @method.title").sort_values("replicate")
    if own.empty or locked.unsent:
        raise UserError(
            f"{method.title} could not be judged on the locked cells: "
            + ("; ".join(locked.failed.values()) or "the tracking store does not answer")
            + "."
        )
    better, verdict = decide(locked.replicates, methods, method, previous)
    spec = locked.study.spec.trial(method, locked.study.spec.settings[0], 0)
    model = _model(study, spec, own.iloc[0], cells) if better else None
    run_id, champion = record_promotion(
        study, [locked.study, paper.study], table, verdict, model, spec, str(own["digest"].iloc[0])
    )
    if better:
        write_study(paper.study.spec, folder, cells.name, verdict, command)
    now = champion or previous
    assert now is not None  # a candidate without a rival is better
    return Promotion(study, table, locked, paper, now, better, verdict, run_id)


def _open_search(name: str, store: TrackingStore) -> tuple[StudyRun[SearchSpec], Cells]:
    found = open_study(store, name)
    if not isinstance(found.spec, SearchSpec):
        raise UserError(
            f"study {found.name} is a {found.spec.study}: only a search (mmlab tune) has "
            "configurations to promote."
        )
    study = found.with_spec(found.spec)
    cells = load_cells(study.spec.data)
    study.require_data(cells, "search again")
    return study, cells


def _comparisons(
    study: StudyRun[SearchSpec], methods: list[MethodSpec], replicates: int
) -> tuple[ComparisonSpec, ComparisonSpec]:
    """The methods on the locked cells, and under the paper's protocol."""
    paper = ComparisonSpec(
        data=study.spec.data,
        methods=methods,
        n_markers=[study.spec.n_markers],
        replicates=replicates,
        seed=study.spec.seed,
        **study.spec.constraint_fields,
    )
    return paper.model_copy(update={"protocol": "locked"}), paper


def _model(study: StudyRun[SearchSpec], spec: TrialSpec, row: pd.Series, cells: Cells) -> Model:
    """The panel of a replicate on the locked cells, with what it was judged by."""
    about = {
        "dataset": cells.name,
        "fingerprint": cells.fingerprint,
        "selector": spec.selector,
        "study": study.name,
        "locked_knn_accuracy": float(row[DECISION_METRIC]),
    }
    panel = np.asarray(row["panel"], dtype=np.int64)
    split = replicate_split(spec, cells, int(row["replicate"]))
    return fit_model(panel, cells, split, about)


def _finished(study: StudyRun[SearchSpec]) -> list[TrialRecord]:
    """Searched trials that ran to their end."""
    selector = study.spec.search.selector
    found = [
        record
        for record in study.trials()
        if record.selector == selector and record.outcome == Outcome.COMPLETE
    ]
    if not found:
        raise UserError(f"no trial of study {study.name} ran to its end: nothing to promote.")
    return found


def _methods(records: Sequence[TrialRecord], digests: pd.Series) -> list[MethodSpec]:
    by_digest = {record.digest: record for record in records}
    chosen = [by_digest[str(digest)] for digest in digests]
    return [
        MethodSpec(selector=r.selector, params=r.spec.params, label=candidate_title(r))
        for r in chosen
    ]


def _lineup(
    study: StudyRun[SearchSpec],
    candidates: Sequence[MethodSpec],
    champion: Champion | None,
    baselines: Sequence[str],
) -> list[MethodSpec]:
    """All that are judged: candidates, the champion, the selector's defaults, baselines."""
    lineup = list(candidates)
    if champion is not None and not any(is_same_method(m, champion.spec) for m in lineup):
        label = f"{champion.spec.selector} {champion.digest[:8]} (champion)"
        spec = champion.spec
        lineup.append(MethodSpec(selector=spec.selector, params=spec.params, label=label))
    selector = study.spec.search.selector
    lineup.append(MethodSpec(selector=selector, label=f"{selector} (default)"))
    return lineup + [MethodSpec(selector=name) for name in baselines]

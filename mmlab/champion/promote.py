"""Promotion: evaluate the best trial of a search on the held-out test set and register it."""

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
    """Outcome of a promotion.

    Attributes
    ----------
    study
        The search.
    candidates
        One row per candidate, see :func:`mmlab.champion.candidates.rank_candidates`.
    locked, paper
        Comparison of candidates, champion and baselines on the held-out test set (protocol
        ``locked``), and on random splits of all cells (protocol ``paper``).
    champion
        The champion after the promotion.
    promoted
        Whether the first candidate is the new champion.
    verdict
        The reason, in a few sentences.
    run_id
        MLflow run of the promotion, a child of the search's run.
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
    """Evaluate the best trial of a search and register it as champion if it is better.

    Candidates, champion, the searched method with its default hyperparameters, and baselines are
    compared on the same replicates. The accuracy on the held-out test set decides, see
    :func:`mmlab.champion.decision.decide`.

    Parameters
    ----------
    study_name
        A finished or interrupted search.
    objectives
        Names from :data:`mmlab.champion.candidates.OBJECTIVES`: all trials on their Pareto front
        are evaluated. Without objectives, only the trial with the highest validation score is.
        Only this trial can be promoted.
    baselines
        Selectors to compare with, with their default hyperparameters.
    replicates
        Number of random splits.
    folder
        Folder of the study file with the champion's benchmark: ``<dataset>.yaml``, or
        ``<dataset>.<key>.yaml`` with the key of the panel constraints.
    command
        The command line, for the studies and the study file.

    Raises
    ------
    UserError
        The study or an objective is unknown, the study is not a search, no trial is complete, the
        data have changed, or the candidate could not be evaluated.
    """
    study, cells = _open_search(study_name, store)
    records = _complete_trials(study)
    table = rank_candidates(study, records, cells, objectives)
    candidates = _candidate_methods(records, table["digest"])
    key = constraints_key(study.spec)
    registered = find_champion(store, cells.name, study.spec.n_markers, key)
    # A champion of other data cannot be compared.
    same_data = registered is not None and registered.fingerprint == cells.fingerprint
    previous = registered if same_data else None
    methods = _compared_methods(study, candidates, previous, baselines)
    locked, paper = (
        run_comparison(spec, store, resources, console, command=command)
        for spec in _comparison_specs(study, methods, replicates)
    )
    method = candidates[0]
    rows = locked.replicates.query("method == @method.title").sort_values("replicate")
    if rows.empty or locked.unsent:
        raise UserError(
            f"{method.title} could not be evaluated on the held-out test set: "
            + ("; ".join(locked.failed.values()) or "the tracking server does not respond")
            + "."
        )
    better, verdict = decide(locked.replicates, methods, method, previous)
    spec = locked.study.spec.trial(method, locked.study.spec.settings[0], 0)
    model = _fit_champion(study, spec, rows.iloc[0], cells) if better else None
    run_id, new_champion = record_promotion(
        study, [locked.study, paper.study], table, verdict, model, spec, str(rows["digest"].iloc[0])
    )
    if better:
        write_study(paper.study.spec, folder, cells.name, verdict, command)
    champion = new_champion or previous
    assert champion is not None  # without a previous champion, the candidate is promoted
    return Promotion(study, table, locked, paper, champion, better, verdict, run_id)


def _open_search(name: str, store: TrackingStore) -> tuple[StudyRun[SearchSpec], Cells]:
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


def _fit_champion(
    study: StudyRun[SearchSpec], spec: TrialSpec, row: pd.Series, cells: Cells
) -> Model:
    """Fit a model on the panel of a replicate, with the accuracy on the held-out test set.

    ``row`` is a finished replicate of the protocol ``locked``.
    """
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


def _candidate_methods(records: Sequence[TrialRecord], digests: pd.Series) -> list[MethodSpec]:
    by_digest = {record.digest: record for record in records}
    candidates = [by_digest[str(digest)] for digest in digests]
    return [
        MethodSpec(selector=r.selector, params=r.spec.params, label=candidate_title(r))
        for r in candidates
    ]


def _compared_methods(
    study: StudyRun[SearchSpec],
    candidates: Sequence[MethodSpec],
    champion: Champion | None,
    baselines: Sequence[str],
) -> list[MethodSpec]:
    """Return candidates, champion, the searched method's defaults, and baselines, in this order."""
    methods = list(candidates)
    if champion is not None and not any(is_same_method(m, champion.spec) for m in methods):
        label = f"{champion.spec.selector} {champion.digest[:8]} (champion)"
        spec = champion.spec
        methods.append(MethodSpec(selector=spec.selector, params=spec.params, label=label))
    selector = study.spec.search.selector
    methods.append(MethodSpec(selector=selector, label=f"{selector} (default)"))
    return methods + [MethodSpec(selector=name) for name in baselines]

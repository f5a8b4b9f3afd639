"""Promotion: the best trial of a search competes with the champion and with the default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from mmlab.champion.candidates import rank_candidates
from mmlab.champion.contenders import compared_methods
from mmlab.champion.decision import DECISION_METRIC, Decision, decide
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
    lock_study,
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
        Whether the champion is new; otherwise, nothing was registered.
    decision
        The winner and the reason.
    run_id
        MLflow run of the promotion, a child of the search's run.
    """

    study: StudyRun[SearchSpec]
    candidates: pd.DataFrame
    locked: ComparisonResult
    paper: ComparisonResult
    champion: Champion
    promoted: bool
    decision: Decision
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
    """Evaluate the best trial of a search, and register the winner if there is a new champion.

    Candidates, champion, the searched method with its default hyperparameters, and baselines are
    compared on the same replicates. The best trial and the default take the title only if their
    accuracy on the held-out test set is significantly higher than that of the champion. If there
    is no champion, the default is the incumbent, and the winner is registered in any case. See
    :func:`mmlab.champion.decision.decide`.

    Parameters
    ----------
    study_name
        A finished or interrupted search.
    objectives
        Names from :data:`mmlab.champion.candidates.OBJECTIVES`: all trials on their Pareto front
        are evaluated. Without objectives, only the trial with the highest validation score is.
        Of the trials, only this one can be promoted.
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
        data have changed, or the best trial or the incumbent could not be evaluated.
    """
    study, cells = _open_search(study_name, store)
    # Two promotions at once would both register a champion.
    with lock_study(store, study.name):
        records = _complete_trials(study)
        table = rank_candidates(study, records, cells, objectives)
        by_digest = {record.digest: record for record in records}
        candidates = [by_digest[str(digest)] for digest in table["digest"]]
        key = constraints_key(study.spec)
        registered = find_champion(store, cells.name, study.spec.n_markers, key)
        # A champion of other data cannot be compared.
        same_data = registered is not None and registered.fingerprint == cells.fingerprint
        previous = registered if same_data else None
        methods, contenders = compared_methods(study.spec, candidates, previous, baselines, cells)
        locked, paper = (
            run_comparison(spec, store, resources, console, command=command)
            for spec in _comparison_specs(study, methods, replicates)
        )
        _require_evaluated(locked, [contenders.best, contenders.incumbent])
        decision = decide(locked.replicates, contenders)
        rows = locked.replicates[locked.replicates["method"] == decision.winner]
        row = rows.sort_values("replicate").iloc[0]
        (trial,) = (trial for trial in locked.trials if trial.digest == row["digest"])
        is_new = decision.winner != contenders.champion
        model = _fit_champion(study, trial.spec, row, cells) if is_new else None
        run_id, new_champion = record_promotion(
            study,
            [locked.study, paper.study],
            table,
            decision.winner,
            decision.verdict,
            model,
            trial.spec,
            trial.digest,
        )
        if is_new:
            spec = _winner_first(paper.study.spec, decision.winner)
            write_study(spec, folder, cells.name, decision.verdict, command)
        champion = new_champion or previous
        assert champion is not None  # without a previous champion, the winner is registered
        return Promotion(study, table, locked, paper, champion, is_new, decision, run_id)


def _require_evaluated(locked: ComparisonResult, names: Sequence[str]) -> None:
    """Raise ``UserError`` if one of the methods has no result on the held-out test set."""
    finished = set() if locked.replicates.empty else set(locked.replicates["method"])
    missing = [name for name in names if name not in finished]
    if missing or locked.unsent:
        reasons = "; ".join(": ".join(failure) for failure in locked.failed.items())
        raise UserError(
            f"{' and '.join(dict.fromkeys(missing or names))} could not be evaluated on the "
            f"held-out test set: {reasons or 'the tracking server does not respond'}."
        )


def _winner_first(spec: ComparisonSpec, winner: str) -> ComparisonSpec:
    """Return a comparison with the winner as the first of its methods."""
    methods = sorted(spec.methods, key=lambda method: method.title != winner)
    return spec.model_copy(update={"methods": methods})


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

"""Promotion: the best trial of a search competes with the champion and with the default."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from mmlab.champion.decision import DECISION_METRIC, Decision, decide
from mmlab.champion.plan import PromotionPlan, open_search, plan_promotion
from mmlab.champion.study_file import write_study
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.model import Model, fit_model
from mmlab.preprocessing.splits import replicate_split
from mmlab.schedule.comparison import run_comparison
from mmlab.schedule.comparison_plan import ComparisonResult
from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.resources import Resources
from mmlab.spec.search import SearchSpec
from mmlab.spec.trial import TrialSpec
from mmlab.tracking import (
    Champion,
    PromotionRun,
    StudyRun,
    TrackingStore,
    create_promotion,
    lock_study,
    register_model,
    set_champion,
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
    show: Callable[[Promotion], None] = lambda _: None,
) -> Promotion:
    """Evaluate the best trial of a search, and register the winner if there is a new champion.

    Candidates, champion, the searched method with its default hyperparameters, and baselines are
    compared on the same replicates. The best trial and the default take the title only if their
    accuracy on the held-out test set is significantly higher than that of the champion. If there
    is no champion, the default is the incumbent, and the winner is registered in any case. See
    :func:`mmlab.champion.decision.decide`.

    A promotion that was interrupted or killed at any point is resumed by the next call with the
    same arguments, and ends as it would have ended.

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
    show
        Called with the outcome before the promotion is finished: if the process is killed while
        it shows the outcome, the next call shows it again.

    Raises
    ------
    UserError
        The study or an objective is unknown, the study is not a search, no trial is complete, the
        data have changed, or the best trial or the incumbent could not be evaluated.
    """
    study, cells = open_search(study_name, store)
    # Two promotions at once would both register a champion.
    with lock_study(store, study.name):
        plan, unfinished = plan_promotion(study, cells, objectives, baselines, replicates)
        plan.check(store, resources)
        run = unfinished or create_promotion(study, plan.comparisons, plan.previous)
        # Each step leaves what an interrupted promotion has done already as it is.
        with run.open():
            locked, paper = (
                run_comparison(
                    spec, store, resources, console, command=command, parent_run_id=run.run_id
                )
                for spec in (plan.locked, plan.paper)
            )
            _require_evaluated(locked, [plan.contenders.best, plan.contenders.incumbent])
            decision = decide(locked.replicates, plan.contenders)
            champion = _settle_title(run, plan, locked, decision)
            promoted = decision.winner != plan.contenders.champion
            if promoted:
                spec = _winner_first(plan.paper, decision.winner)
                write_study(spec, folder, cells.name, decision.verdict, command)
            result = Promotion(
                study, plan.candidates, locked, paper, champion, promoted, decision, run.run_id
            )
            show(result)
        return result


def _settle_title(
    run: PromotionRun, plan: PromotionPlan, locked: ComparisonResult, decision: Decision
) -> Champion:
    """Record the decision and return the champion, which is registered first if it is new."""
    study, cells = plan.study, plan.cells
    rows = locked.replicates[locked.replicates["method"] == decision.winner]
    row = rows.sort_values("replicate").iloc[0]
    (trial,) = (trial for trial in locked.trials if trial.digest == row["digest"])
    run.log_decision(plan.candidates, decision.winner, decision.verdict, trial.digest)
    if decision.winner == plan.contenders.champion:
        assert plan.previous is not None  # the champion competes only if there is one
        champion = plan.previous
    else:
        run.log_accuracy(float(row[DECISION_METRIC]))
        model = _fit_champion(study, trial.spec, row, cells)
        champion = register_model(
            study.store, run.run_id, model, trial.spec, trial.digest, study.name
        )
    set_champion(study.store, cells.name, champion)
    return champion


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

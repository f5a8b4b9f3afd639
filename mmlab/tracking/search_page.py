"""Page of a search in the MLflow UI: description, best trials, metrics of the best trial."""

from __future__ import annotations

import math
from collections import Counter

from mmlab.constraints.describe import describe_constraints, escape_markdown
from mmlab.spec.search import SearchSpec
from mmlab.tracking.study_run import StudyRun
from mmlab.tracking.trial_record import TrialRecord, baseline_ahead, baseline_scores
from mmlab.trial.objective import SCORE
from mmlab.trial.outcome import Outcome


def log_search_summary(
    study: StudyRun[SearchSpec], records: list[TrialRecord], best: TrialRecord | None
) -> None:
    """Write the description of the study's page, and log the metrics of the best trial."""
    spec = study.spec
    counts = Counter(str(record.outcome) for record in records)
    listed = ", ".join(f"{n} {outcome}" for outcome, n in sorted(counts.items()))
    constraints = describe_constraints(spec, escape_markdown)
    lines = [
        f"**Search of {spec.search.selector} on {spec.data.title}, {spec.n_markers} markers.** "
        f"Trials: {listed}. All scores are from the validation cells; the held-out test set was "
        "not used.",
        "",
        *([f"{' '.join(constraints)}\n"] if constraints else []),
    ]
    if best is not None:
        params = ", ".join(
            f"{name} {format_value(best.spec.params[name])}" for name in spec.search.parameters
        )
        lines += [
            f"**Best trial:** validation score {best.score:.4f} with {params}. The metrics of this "
            "run are those of the best trial; `score` is the validation score, higher is better.",
            "",
        ]
        baselines = baseline_scores(spec, records)
        if baselines:
            listed = ", ".join(f"{name} {score:.4f}" for name, score in baselines.items())
            lines += [f"**Baselines:** {listed}. {baseline_ahead(baselines, best)}".rstrip(), ""]
        _log_best(study, best)
    lines += ["| trial | selector | status | validation score |", "|---|---|---|---|"]
    for record in sorted(records, key=_complete_and_best_first)[:10]:
        link = f"[{record.digest[:8]}](#/experiments/{study.experiment_id}/runs/{record.run_id})"
        score = "" if record.score is None else f"{record.score:.4f}"
        lines.append(f"| {link} | {record.selector} | {record.outcome} | {score} |")
    study.store.set_tags(study.run_id, {"mlflow.note.content": "\n".join(lines)})


def _log_best(study: StudyRun[SearchSpec], best: TrialRecord) -> None:
    """Log the metrics of the best trial: under their own names, and some of them as ``best/...``.

    The own names are for charts that compare the study with its trials.
    """
    metrics = {
        name: value
        for name, value in best.metrics.items()
        if name.startswith("validation/") and not name.endswith("/loss")
    }
    short = {
        f"best/{name.removeprefix('validation/')}": value
        for name, value in metrics.items()
        if not name.endswith("_std")
    }
    score = {} if best.score is None else {SCORE: best.score}
    study.store.log_metrics(study.run_id, metrics | short | score, 0)
    tags = {"mmlab.best": best.run_id, "mmlab.score": "validation score; higher is better"}
    study.store.set_tags(study.run_id, tags)


def _complete_and_best_first(record: TrialRecord) -> tuple[bool, float]:
    score = -math.inf if record.score is None else record.score
    return record.outcome != Outcome.COMPLETE, -score


def format_value(value: object) -> str:
    """Return a parameter's value as text; floats with four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)

"""The page of a search in the MLflow UI: its summary, its best trials, its best metrics."""

from __future__ import annotations

import math
from collections import Counter

from mmlab.constraints.describe import describe_constraints, escape_markdown
from mmlab.spec.search import SearchSpec
from mmlab.tracking.study import StudyRun
from mmlab.tracking.trial import Outcome, TrialRecord


def describe_search(
    study: StudyRun[SearchSpec], records: list[TrialRecord], best: TrialRecord | None
) -> None:
    """Write the summary that the study's page shows, and the best trial's metrics."""
    spec = study.spec
    counts = Counter(str(record.outcome) for record in records)
    listed = ", ".join(f"{n} {outcome}" for outcome, n in sorted(counts.items()))
    lines = [
        f"**{spec.search.selector} on {spec.data.title}, {spec.n_markers} markers:** {listed} "
        "trials. Scores are measured on validation cells; the locked test cells were not touched.",
        "",
        *(
            f"{' '.join(asked)}\n"
            for asked in [describe_constraints(spec, escape_markdown)]
            if asked
        ),
    ]
    if best is not None:
        params = ", ".join(
            f"{name} {format_value(best.spec.params[name])}" for name in spec.search.parameters
        )
        lines += [f"**Best:** score {best.score:.4f} with {params}.", ""]
        _keep_best(study, best)
    lines += ["| trial | selector | state | validation score |", "|---|---|---|---|"]
    for record in sorted(records, key=_complete_and_best_first)[:10]:
        link = f"[{record.digest[:8]}](#/experiments/{study.experiment_id}/runs/{record.run_id})"
        score = "" if record.score is None else f"{record.score:.4f}"
        lines.append(f"| {link} | {record.selector} | {record.outcome} | {score} |")
    study.store.set_tags(study.run_id, {"mlflow.note.content": "\n".join(lines)})


def _keep_best(study: StudyRun[SearchSpec], best: TrialRecord) -> None:
    metrics = {
        f"best/{name.removeprefix('validation/')}": value
        for name, value in best.metrics.items()
        if name.startswith("validation/") and not name.endswith(("_std", "/loss"))
    }
    study.store.log_metrics(study.run_id, metrics, 0)
    study.store.set_tags(study.run_id, {"mmlab.best": best.run_id})


def _complete_and_best_first(record: TrialRecord) -> tuple[bool, float]:
    score = -math.inf if record.score is None else record.score
    return record.outcome != Outcome.COMPLETE, -score


def format_value(value: object) -> str:
    """A parameter's value for people: four digits of a float."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)

"""What `mmlab tune` prints of a search."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from mmlab.cli.console import print_text, program_name, stdout
from mmlab.cli.tracking_store import page_hint, page_link
from mmlab.system.words import count

if TYPE_CHECKING:
    from mmlab.schedule.running_search import SearchResult


def search_json(result: SearchResult) -> dict[str, Any]:
    """Return what ``--json`` prints of a search."""
    from mmlab.tracking import study_page

    study, best = result.study, result.best
    return {
        "study": study.name,
        "run_id": study.run_id,
        "tracking_uri": study.store.uri,
        "page": page_link(study.store, study_page(study.experiment_id, study.run_id)),
        "unsent": result.unsent,
        "trials": [
            {
                "digest": trial.digest,
                "run_id": trial.run_id,
                "selector": trial.selector,
                "status": str(trial.outcome),
                "params": trial.spec.params,
                "metrics": trial.metrics,
            }
            for trial in result.trials
        ],
        "best": None
        if best is None
        else {
            "digest": best.digest,
            "run_id": best.run_id,
            "config": best.spec.params,
            "metrics": best.metrics,
            "panel": result.panel,
        },
    }


def print_result(result: SearchResult) -> None:
    """Print the best trial of a search, and where the study is."""
    from rich.table import Table

    from mmlab.tracking import baseline_ahead, baseline_scores, format_value, study_page

    study = result.study
    best = result.best
    if best is not None:
        table = Table(box=None, show_header=False)
        table.add_row("validation score", f"{best.score:.4f}")
        for name in study.spec.search.parameters:
            table.add_row(name, format_value(best.spec.params[name]))
        baselines = baseline_scores(study.spec, result.trials)
        for name, score in baselines.items():
            table.add_row(f"baseline {name}", f"{score:.4f}")
        print_text(f"Best of {count(study.spec.trials, 'trial')}: {best.digest[:8]}")
        stdout().print(table)
        if ahead := baseline_ahead(baselines, best):
            print_text(ahead)
        print_text(f"First markers: {', '.join(result.panel[:10])}")
    if not result.unsent:
        print_text(f"Study {study.name} is saved in {study.store.uri}")
        if best is not None:
            name = shlex.quote(study.name)
            print_text(
                f"Evaluate it on the held-out test set with: {program_name()} promote {name}"
            )
        print_text(page_hint(study.store, study_page(study.experiment_id, study.run_id)))


def describe_missing(result: SearchResult) -> str:
    """Return a sentence on results that a search lacks; empty if it has all.

    Trials that failed or were stopped early are results of a search, except those of baselines.
    """
    if result.best is None:
        failed = [trial for trial in result.trials if trial.outcome == "failed"]
        reasons = [line for trial in failed for line in trial.reason.splitlines()[-1:]]
        reason = f" The last one: {reasons[-1]}" if reasons else ""
        return (
            f"No trial of study {result.study.name} was completed: {len(failed)} of "
            f"{len(result.trials)} failed.{reason}"
        )
    selector = result.study.spec.search.selector
    names = [t.selector for t in result.trials if t.selector != selector and t.outcome == "failed"]
    return f"Baselines failed: {', '.join(names)}." if names else ""

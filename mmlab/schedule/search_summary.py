"""Summary of a search: its best trial, the table of trials, and the files of both."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from mmlab.figures.style import save_figure
from mmlab.schedule.search_figures import search_figures
from mmlab.spec.search import SearchSpec
from mmlab.tracking import StudyRun, TrialRecord
from mmlab.trial.outcome import Outcome


def best_trial(study: StudyRun[SearchSpec], records: list[TrialRecord]) -> TrialRecord | None:
    """Return the complete searched trial with the highest validation score; None if none is."""
    complete = [
        record
        for record in records
        if record.selector == study.spec.search.selector
        and record.outcome == Outcome.COMPLETE
        and record.score is not None
    ]
    return max(complete, key=lambda record: record.score or 0.0, default=None)


def trial_table(records: list[TrialRecord]) -> pd.DataFrame:
    """Return a table with one row per trial: digest, selector, outcome, parameters, metrics."""
    return pd.DataFrame(
        [
            {
                "digest": record.digest,
                "selector": record.selector,
                "outcome": str(record.outcome),
                **{f"params.{name}": value for name, value in record.spec.params.items()},
                **record.metrics,
            }
            for record in records
        ]
    )


def write_summary(
    study: StudyRun[SearchSpec], records: list[TrialRecord], best: TrialRecord | None, folder: Path
) -> None:
    """Write the table of trials, the best trial and the figures into ``folder``."""
    table = trial_table(records)
    table.to_parquet(folder / "trials.parquet", index=False)
    table.to_csv(folder / "trials.csv", index=False)
    if best is not None:
        content = {
            "digest": best.digest,
            "run_id": best.run_id,
            "spec": best.spec.model_dump(mode="json"),
            "metrics": best.metrics,
        }
        (folder / "best.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    figures_folder = folder / "figures"
    figures_folder.mkdir()
    for name, figure in search_figures(study, records).items():
        save_figure(figure, figures_folder / f"{name}.png", bbox_inches="tight", dpi=120)

"""End of studies: closing their runs, and those that killed processes left open.

Only tags are read, never a specification, so that a study with a damaged record is closed too.
"""

from __future__ import annotations

from collections import Counter

from mmlab.system.driver_folder import end_leftovers
from mmlab.tracking.run_owner import owner_is_alive
from mmlab.tracking.store import TrackingStore
from mmlab.tracking.trial_record import outcome_of
from mmlab.tracking.trial_run import close_trial
from mmlab.trial.outcome import ENDED, Outcome


def close_open_trials(store: TrackingStore, study: str, experiment_id: str) -> None:
    """Close all trials of a study that are still RUNNING; unended ones become interrupted."""
    for run in store.trial_runs(study, experiment_id, status="RUNNING"):
        outcome = outcome_of(run)
        if outcome not in ENDED:
            outcome = Outcome.INTERRUPTED
        close_trial(store, run.info.run_id, outcome, run.data.tags.get("mmlab.reason", ""))


def finish_study(
    store: TrackingStore, study: str, run_id: str, experiment_id: str, complete: bool
) -> None:
    """Close the parent run of a study as FINISHED if ``complete``, else as KILLED.

    Open runs of trials and methods are closed first, and the outcomes are counted.
    """
    close_open_trials(store, study, experiment_id)
    tags = {"mmlab.study": study, "mmlab.kind": "method"}
    for run in store.search(tags, status="RUNNING", experiment_ids=[experiment_id]):
        store.close(run.info.run_id, "KILLED")
    counts = Counter(map(outcome_of, store.trial_runs(study, experiment_id)))
    metrics = {f"trials/{outcome}": float(counts[outcome]) for outcome in sorted(ENDED)}
    store.log_metrics(run_id, metrics, 0)
    store.close(run_id, "FINISHED" if complete else "KILLED")


def close_abandoned(store: TrackingStore) -> None:
    """Close the RUNNING runs of dead processes: studies with their trials, promotions, trials.

    :func:`mmlab.tracking.run_owner.owner_is_alive` decides whether a process is dead. Its workers
    may be alive, and write to its runs: they are ended first.
    """
    end_leftovers()
    for run in store.search({}, status="RUNNING"):
        tags, run_id = run.data.tags, run.info.run_id
        if "mmlab.pid" not in tags or owner_is_alive(tags):
            continue
        kind, study = tags.get("mmlab.kind"), tags.get("mmlab.study", "")
        if kind == "study":
            finish_study(store, study, run_id, run.info.experiment_id, complete=False)
        elif kind == "promotion":
            store.close(run_id, "KILLED")
        else:
            close_trial(store, run_id, Outcome.INTERRUPTED)

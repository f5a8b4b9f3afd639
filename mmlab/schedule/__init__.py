"""Scheduling of trials: searches and comparisons with Ray Tune and Optuna.

The only package of mmlab that imports ray or optuna. It never reads Tune's own state on disk: the
tracking store records which trials have ended, and a resumed study starts from that record.

The package itself imports none of its modules, so that a worker loads only what its trials need.
"""

from __future__ import annotations

import os

# Ray reads these when it is imported or started; values that the user has set take precedence.
for _name, _value in {
    # Despite its name, this also binds the processes of a local Ray on Linux to 127.0.0.1, so that
    # other machines cannot reach them. It changes nothing for a cluster that is joined.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}.items():
    os.environ.setdefault(_name, _value)

from mmlab.schedule.cluster import inspect_cluster, require_machine
from mmlab.schedule.cluster_address import FoundCluster, require_cluster
from mmlab.schedule.comparison import run_comparison
from mmlab.schedule.comparison_plan import (
    ComparisonResult,
    comparison_name,
    plan_trials,
    read_comparison,
)
from mmlab.schedule.node_check import NodeReport
from mmlab.schedule.running_search import SearchResult
from mmlab.schedule.search import resume_search, run_search
from mmlab.schedule.search_figures import search_figures
from mmlab.schedule.search_summary import best_trial, trial_table
from mmlab.schedule.study_size import check_size
from mmlab.schedule.submit import compute_trials
from mmlab.spec.resources import Resources
from mmlab.system.interruption import StudyInterruptedError

__all__ = [
    "ComparisonResult",
    "FoundCluster",
    "NodeReport",
    "Resources",
    "SearchResult",
    "StudyInterruptedError",
    "best_trial",
    "check_size",
    "comparison_name",
    "compute_trials",
    "inspect_cluster",
    "plan_trials",
    "read_comparison",
    "require_cluster",
    "require_machine",
    "resume_search",
    "run_comparison",
    "run_search",
    "search_figures",
    "trial_table",
]

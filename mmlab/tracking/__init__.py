"""Experiment tracking with MLflow: studies, trials and the model registry.

The only package of mmlab that imports mlflow. A dataset is an experiment, a study a parent run, a
trial a nested run. The tracking store is also mmlab's own record of which trials have ended.
"""

from __future__ import annotations

import os

# MLflow reads these when it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from mmlab.tracking.ended_trial import EndedTrial
from mmlab.tracking.finished_replicates import (
    find_finished_replicates,
    read_replicates,
    read_study_replicates,
)
from mmlab.tracking.method_run import MethodRun, log_leader
from mmlab.tracking.model_registry import (
    Champion,
    find_champion,
    load_model,
    register_model,
    set_champion,
)
from mmlab.tracking.old_runs import (
    OldStudy,
    artifact_bytes,
    delete_study,
    find_old_studies,
)
from mmlab.tracking.outbox import Outbox
from mmlab.tracking.promotion import (
    PromotionRun,
    create_promotion,
    find_promotions,
    unfinished_promotions,
)
from mmlab.tracking.search_page import format_value, log_search_summary
from mmlab.tracking.spec_params import constraint_params
from mmlab.tracking.spec_tags import spec_tags
from mmlab.tracking.storage import check_storage
from mmlab.tracking.store import TrackingStore
from mmlab.tracking.study_end import close_abandoned
from mmlab.tracking.study_lock import lock_results_file, lock_study
from mmlab.tracking.study_page import latest_study_page, page_address, run_page, study_page
from mmlab.tracking.study_run import (
    StudyRun,
    claim_study,
    create_study,
    find_study,
    find_study_run,
    open_study,
    reclaim_study,
)
from mmlab.tracking.tracking_uri import URI_VARIABLE, resolve_uri
from mmlab.tracking.trial_record import TrialRecord, baseline_ahead, baseline_scores
from mmlab.tracking.trial_run import (
    STORE_ERRORS,
    TrialRun,
    close_trial,
    run_tracked,
)
from mmlab.tracking.unrecorded_result import UnrecordedResultError

__all__ = [
    "STORE_ERRORS",
    "URI_VARIABLE",
    "Champion",
    "EndedTrial",
    "MethodRun",
    "OldStudy",
    "Outbox",
    "PromotionRun",
    "StudyRun",
    "TrackingStore",
    "TrialRecord",
    "TrialRun",
    "UnrecordedResultError",
    "artifact_bytes",
    "baseline_ahead",
    "baseline_scores",
    "check_storage",
    "claim_study",
    "close_abandoned",
    "close_trial",
    "constraint_params",
    "create_promotion",
    "create_study",
    "delete_study",
    "find_champion",
    "find_finished_replicates",
    "find_old_studies",
    "find_promotions",
    "find_study",
    "find_study_run",
    "format_value",
    "latest_study_page",
    "load_model",
    "lock_results_file",
    "lock_study",
    "log_leader",
    "log_search_summary",
    "open_study",
    "page_address",
    "read_replicates",
    "read_study_replicates",
    "reclaim_study",
    "register_model",
    "resolve_uri",
    "run_page",
    "run_tracked",
    "set_champion",
    "spec_tags",
    "study_page",
    "unfinished_promotions",
]

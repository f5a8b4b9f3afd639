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

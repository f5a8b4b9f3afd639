#!/usr/bin/env bash
# Delete for good the runs and experiments that were deleted in the MLflow UI or by `mmlab prune`,
# with their artifacts. The server has to run. Arguments go to `mlflow gc`: gc.sh --older-than 30d
. "$(dirname "$0")/settings.sh"

MLFLOW_TRACKING_URI=http://127.0.0.1:$TRACKING_PORT exec "$PYTHON" -m mlflow gc \
    --backend-store-uri "$TRACKING_DATABASE" --artifacts-destination "$TRACKING_ARTIFACTS" "$@"

#!/usr/bin/env bash
# Upgrade the database's schema, then run the MLflow server behind the proxy of proxy.sh.
. "$(dirname "$0")/settings.sh"

# Creates the tables of an empty database; does nothing if they are those of this MLflow.
"$PYTHON" -m mlflow db upgrade "$TRACKING_DATABASE"

export MLFLOW_BACKEND_STORE_URI=$TRACKING_DATABASE
export MLFLOW_ARTIFACTS_DESTINATION=$TRACKING_ARTIFACTS
# Names under which clients, and programs on this machine, may address the server.
export MLFLOW_SERVER_ALLOWED_HOSTS="$TRACKING_HOST,$TRACKING_HOST:*,localhost:*,127.0.0.1:*"
export MLFLOW_SERVER_CORS_ALLOWED_ORIGINS="https://$TRACKING_HOST,https://$TRACKING_HOST:*"
# Job workers take 2 GB of memory and half a minute to start; mmlab uses none.
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
exec "$PYTHON" -m mlflow server --host "$TRACKING_BIND" --port "$TRACKING_PORT" \
    --workers "$TRACKING_WORKERS"

# Settings of the tracking server, read by all scripts of this folder. Set them in the environment,
# or in the file that TRACKING_SETTINGS names.
# shellcheck shell=bash disable=SC2034,SC2153
set -euo pipefail
umask 077
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

fail() {
    echo "Error: $1" >&2
    exit 2
}

if [ -n "${TRACKING_SETTINGS:-}" ]; then
    [ -r "$TRACKING_SETTINGS" ] || fail "TRACKING_SETTINGS: $TRACKING_SETTINGS cannot be read."
    set -a
    # shellcheck source=/dev/null
    . "$TRACKING_SETTINGS"
    set +a
fi

for name in TRACKING_HOST TRACKING_DATABASE TRACKING_ARTIFACTS TRACKING_SECRETS; do
    [ -n "${!name:-}" ] || fail "$name is not set; README.md of this folder says to what."
done
[[ $TRACKING_HOST =~ ^[A-Za-z0-9.-]+$ ]] ||
    fail "TRACKING_HOST '$TRACKING_HOST' must be a name alone, such as tracking.example.org."
[[ $TRACKING_DATABASE =~ ^postgresql://[^:@/]+@[^@]+/[A-Za-z0-9_]+$ ]] ||
    fail "TRACKING_DATABASE must be postgresql://USER@HOST:PORT/NAME; its password is in pgpass."
[ -d "$TRACKING_SECRETS" ] || fail "TRACKING_SECRETS: there is no folder $TRACKING_SECRETS."

PYTHON=${PYTHON:-python3}
TRACKING_SECRETS=$(cd "$TRACKING_SECRETS" && pwd)
TRACKING_BIND=${TRACKING_BIND:-127.0.0.1}
TRACKING_PORT=${TRACKING_PORT:-5000}
TRACKING_TLS_PORT=${TRACKING_TLS_PORT:-443}
TRACKING_WORKERS=${TRACKING_WORKERS:-2}
TRACKING_STATE=${TRACKING_STATE:-/var/lib/mmlab-tracking}

# libpq and boto3 read the secrets from these files: none is in an argument or a variable.
export PGPASSFILE=$TRACKING_SECRETS/pgpass
export AWS_SHARED_CREDENTIALS_FILE=$TRACKING_SECRETS/s3_credentials
export AWS_EC2_METADATA_DISABLED=true
if [ -n "${TRACKING_S3_ENDPOINT:-}" ]; then
    export MLFLOW_S3_ENDPOINT_URL=$TRACKING_S3_ENDPOINT
    export AWS_DEFAULT_REGION=${AWS_DEFAULT_REGION:-us-east-1}
fi
export MLFLOW_DISABLE_TELEMETRY=true

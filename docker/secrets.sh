#!/usr/bin/env bash
# Create the secrets that compose.yaml and kuberay/ read, in docker/secrets or in FOLDER. Those that
# exist are kept. Usage: docker/secrets.sh [FOLDER]
set -euo pipefail
umask 077
docker=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$docker/secrets}
host=${TRACKING_HOST:-tracking}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

random() { openssl rand -hex "$1"; }
# Write the standard input to a new file of the folder; leave a file that exists alone.
create() {
    if [ -e "$folder/$1" ]; then cat >/dev/null; else cat >"$folder/$1"; fi
}

random 32 | create ray_token
# The folder that ray-up.yaml copies to all machines.
mkdir -p "$folder/ray"
create ray/auth_token <"$folder/ray_token"
random 24 | create postgres_password
echo "postgres:5432:mlflow:mlflow:$(<"$folder/postgres_password")" | create pgpass
create s3_credentials <<END
[default]
aws_access_key_id = $(random 10)
aws_secret_access_key = $(random 20)
END
value() { sed -n "s/^$1 = //p" "$folder/s3_credentials"; }
# The same key as SeaweedFS reads it.
create s3.json <<END
{"identities": [{"name": "mlflow",
  "credentials": [{"accessKey": "$(value aws_access_key_id)", "secretKey": "$(value aws_secret_access_key)"}],
  "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}
END
# A certificate for trying out, which clients must be told to trust; replace it by one of your own.
if [ ! -e "$folder/tls.crt" ]; then
    openssl req -x509 -newkey rsa:2048 -nodes -days 365 -subj "/CN=$host" \
        -addext "subjectAltName=DNS:$host,DNS:localhost" \
        -keyout "$folder/tls.key" -out "$folder/tls.crt" 2>/dev/null
fi
# The driver's user of the tracking server. MLflow reads its password from this file.
if [ ! -e "$folder/mlflow_credentials" ]; then
    password=$(random 24)
    create mlflow_credentials <<END
[mlflow]
mlflow_tracking_username = driver
mlflow_tracking_password = $password
END
    echo "driver:$(openssl passwd -apr1 -stdin <<<"$password")" >>"$folder/users"
fi

# Containers run as the user who owns the secrets.
if [ "$(id -u)" = 0 ]; then
    chown -R 1000:1000 "$folder"
fi
printf 'MMLAB_UID=%s\nTRACKING_HOST=%s\nMMLAB_SECRETS=%s\n' "$(stat -c %u "$folder")" "$host" "$folder" \
    >"$docker/.env"
echo "secrets are in $folder, settings of compose.yaml in $docker/.env"

#!/usr/bin/env bash
# Create the secrets that do not exist yet: the database's password, and a certificate for tests.
. "$(dirname "$0")/settings.sh"

[[ $TRACKING_DATABASE =~ ^postgresql://(.+)@([^:/]+)(:([0-9]+))?/(.+)$ ]]
if [ ! -e "$PGPASSFILE" ]; then
    password=$(openssl rand -hex 24)
    echo "${BASH_REMATCH[2]}:${BASH_REMATCH[4]:-5432}:${BASH_REMATCH[5]}:${BASH_REMATCH[1]}:$password" \
        >"$PGPASSFILE"
fi
if [ ! -e "$TRACKING_SECRETS/tls.crt" ]; then
    openssl req -x509 -newkey rsa:2048 -nodes -days 365 -subj "/CN=$TRACKING_HOST" \
        -addext "subjectAltName=DNS:$TRACKING_HOST" \
        -keyout "$TRACKING_SECRETS/tls.key" -out "$TRACKING_SECRETS/tls.crt" 2>/dev/null
fi

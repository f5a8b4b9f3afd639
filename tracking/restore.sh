#!/usr/bin/env bash
# Restore what backup.sh wrote: restore.sh FOLDER. The server has to be stopped.
. "$(dirname "$0")/settings.sh"

[ $# -eq 1 ] || fail "restore.sh FOLDER: name the folder of a backup."
[ -r "$1/database.dump" ] || fail "$1 has no database.dump: it is not a complete backup."
others=$(psql --dbname="$TRACKING_DATABASE" --tuples-only --no-align --command="
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend'
        AND pid <> pg_backend_pid()")
[ "$others" = 0 ] || fail "$others connections use the database. Stop the server, then try again."
# Artifacts first: a restored run has its artifacts at any time.
"$PYTHON" "$here/copy_artifacts.py" "$1/artifacts" "$TRACKING_ARTIFACTS"
statements=$(mktemp)
trap 'rm -f "$statements"' EXIT
pg_restore --no-owner --file="$statements" "$1/database.dump"
# The present tables go first: they may be those of a newer MLflow.
psql --dbname="$TRACKING_DATABASE" --set=ON_ERROR_STOP=1 --single-transaction --quiet \
    --output=/dev/null --command="SET client_min_messages = warning" \
    --command="DROP SCHEMA public CASCADE" --command="CREATE SCHEMA public" --file="$statements"
echo "$1 is restored"

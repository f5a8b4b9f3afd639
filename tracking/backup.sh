#!/usr/bin/env bash
# Back up database and artifacts while the server runs: backup.sh FOLDER
#
# The database comes first. mmlab uploads the artifacts of a run before it closes the run, so every
# run that is closed in the dump has its artifacts in the copy made after it. The copy may contain
# artifacts of later runs, which no run of the dump names. In the other order runs without
# artifacts would be restored.
. "$(dirname "$0")/settings.sh"

[ $# -eq 1 ] || fail "backup.sh FOLDER: name the new folder of the backup."
[ ! -e "$1" ] || fail "$1 exists already. Name a new folder."
mkdir -p "$1"
# A dump is a snapshot of one transaction.
pg_dump --format=custom --no-owner --file="$1/database.dump.part" --dbname="$TRACKING_DATABASE"
"$PYTHON" "$here/copy_artifacts.py" "$TRACKING_ARTIFACTS" "$1/artifacts"
# Only a complete backup has this name.
mv "$1/database.dump.part" "$1/database.dump"
echo "$1 is complete: $(du -sh "$1" | cut -f1)"

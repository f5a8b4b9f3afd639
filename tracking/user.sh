#!/usr/bin/env bash
# Give a user of the server a new random password, which is printed: user.sh NAME
# Remove a user: user.sh --remove NAME
. "$(dirname "$0")/settings.sh"

usage="user.sh [--remove] NAME, where NAME has letters, digits, dots, hyphens and underscores."
remove=false
if [ "${1:-}" = --remove ]; then
    remove=true
    shift
fi
[[ $# -eq 1 && $1 =~ ^[A-Za-z0-9._-]+$ ]] || fail "$usage"
users=$TRACKING_SECRETS/users
touch "$users"
cp -p "$users" "$users.new"
grep -v "^${1//./\\.}:" "$users" >"$users.new" || true
if ! $remove; then
    password=$(openssl rand -base64 30)
    echo "$1:$(openssl passwd -apr1 -stdin <<<"$password")" >>"$users.new"
fi
# nginx reads the file at every request: it is replaced as a whole.
mv "$users.new" "$users"
$remove || echo "$password"

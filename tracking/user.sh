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
others=$(grep -v "^${1//./\\.}:" "$users" || true)
{
    [ -z "$others" ] || echo "$others"
    if ! $remove; then
        password=$(openssl rand -base64 30)
        echo "$1:$(openssl passwd -apr1 -stdin <<<"$password")"
        echo "$password" >&2
    fi
} >"$users.new"
chown --reference="$users" "$users.new"
mv "$users.new" "$users"

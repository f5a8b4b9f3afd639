#!/usr/bin/env bash
# Run nginx in the foreground with nginx.conf.template, or check the configuration: proxy.sh -t
. "$(dirname "$0")/settings.sh"

for file in users tls.crt tls.key; do
    [ -r "$TRACKING_SECRETS/$file" ] || fail "$TRACKING_SECRETS/$file is missing or unreadable."
done
# Root's nginx has workers of another user, who reads the file of users at every request.
mkdir -p "$TRACKING_STATE"
chmod 711 "$TRACKING_STATE"
directives="daemon off;"
[ "$(id -u)" != 0 ] || directives+=" user $(stat -c '%U %G' "$TRACKING_SECRETS/users");"
configuration=$TRACKING_STATE/nginx.conf
sed -e "s|\${TRACKING_HOST}|$TRACKING_HOST|g" \
    -e "s|\${TRACKING_UPSTREAM}|${TRACKING_UPSTREAM:-127.0.0.1:$TRACKING_PORT}|g" \
    -e "s|\${TRACKING_TLS_PORT}|$TRACKING_TLS_PORT|g" \
    -e "s|\${TRACKING_SECRETS}|$TRACKING_SECRETS|g" \
    -e "s|\${TRACKING_STATE}|$TRACKING_STATE|g" \
    "$here/nginx.conf.template" >"$configuration"
exec nginx -p "$TRACKING_STATE" -e stderr -c "$configuration" -g "$directives" "$@"

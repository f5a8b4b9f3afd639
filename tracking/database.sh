#!/usr/bin/env bash
# Create the role and the database, with the password in pgpass. Arguments go to psql, which
# connects as a role that may create both: database.sh --host=/var/run/postgresql --username=postgres
. "$(dirname "$0")/settings.sh"

[[ $TRACKING_DATABASE =~ ^postgresql://(.+)@.+/(.+)$ ]]
export role=${BASH_REMATCH[1]} database=${BASH_REMATCH[2]}
psql "$@" --quiet --dbname=postgres --set=ON_ERROR_STOP=1 <<'SQL'
\getenv role role
\getenv database database
\set password `cut -d: -f5 "$PGPASSFILE"`
SET log_statement = 'none';
SELECT format('CREATE ROLE %I LOGIN', :'role')
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role') \gexec
SELECT format('ALTER ROLE %I PASSWORD %L', :'role', :'password') \gexec
SELECT format('CREATE DATABASE %I OWNER %I', :'database', :'role')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec
SQL

#!/bin/sh
# One database for each service, owned by the role that migrates it; the role that the service runs as owns nothing and gets
# what the migrations grant. Runs once, when the data folder is empty.
set -eu
q() { psql -v ON_ERROR_STOP=1 --no-psqlrc --quiet --username "${POSTGRES_USER:-postgres}" "$@"; }
for service in auth billing; do
    for role in migrator app; do
        # An empty password would make a role that nobody can use, in a cluster that is never initialized again.
        [ -s "/run/secrets/postgres_${service}_${role}_password" ] || { echo "the password of ${service}_${role} is empty" >&2; exit 1; }
    done
    q --dbname postgres \
        -v migrator_password="$(cat "/run/secrets/postgres_${service}_migrator_password")" \
        -v app_password="$(cat "/run/secrets/postgres_${service}_app_password")" \
        -v migrator="${service}_migrator" -v app="${service}_app" -v database="$service" <<'SQL'
create role :"migrator" login password :'migrator_password';
create role :"app" login password :'app_password';
create database :"database" owner :"migrator";
revoke all on database :"database" from public;
grant connect on database :"database" to :"app";
SQL
    q --dbname "$service" -v migrator="${service}_migrator" <<'SQL'
alter schema public owner to :"migrator";
revoke all on schema public from public;
SQL
done

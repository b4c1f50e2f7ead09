#!/bin/bash
# Loads the images, makes .env and secrets/ where they are missing, starts the stack and waits until it is healthy.
# Arguments: the scripts that load and prepare, the maker of secrets, and what the loading script loads.
set -euo pipefail
load=$1 prepare=$2 secrets=$3
shift 3
root=${BUILD_WORKSPACE_DIRECTORY:?run this by bazel run //compose:up}
docker=${DOCKER:-docker}

started=$EPOCHREALTIME
took() { awk "BEGIN {printf \"    %.1f s\n\", $EPOCHREALTIME - $started}" >&2; started=$EPOCHREALTIME; }

bash "$load" "$@"
took
# Beside the compose file: what it reads and what git does not have.
bash "$prepare" "$secrets" "$root"
cd "$root"
started=$EPOCHREALTIME
if ! "$docker" compose up --detach --wait --remove-orphans; then
  # Postgres keeps the passwords it was made with: the secrets of another clone do not open its volume.
  if "$docker" compose logs --no-color 2>/dev/null | grep 'password authentication failed' >/dev/null; then
    cat >&2 <<EOF

Postgres refuses the passwords in $root/secrets: its data was made with other ones, as by another clone.
    Copy that clone's secrets/ here; or forget the data: ./dev down --volumes;
    or start beside it: COMPOSE_PROJECT_NAME=other ./dev up, with other ports in .env.
EOF
  fi
  exit 1
fi
# Who is stood in for no longer: to Compose what belongs to a profile that is off is nobody's orphan.
wanted=$("$docker" compose config --services)
for simulator in llm-simulator stripe-simulator; do
  grep -qx "$simulator" <<<"$wanted" || "$docker" compose --profile "$simulator" rm --stop --force "$simulator"
done
took

#!/bin/bash
# Loads the images, makes .env and secrets/ where they are missing, starts the stack and waits until it is healthy.
# Arguments: the loading script, the maker of secrets, and what the loading script loads.
set -euo pipefail
load=$1 secrets=$2
shift 2
root=${BUILD_WORKSPACE_DIRECTORY:?run this by bazel run //compose:up}
docker=${DOCKER:-docker}

started=$EPOCHREALTIME
took() { awk "BEGIN {printf \"    %.1f s\n\", $EPOCHREALTIME - $started}" >&2; started=$EPOCHREALTIME; }

bash "$load" "$@"
took
"$secrets" "$root/secrets"
[ -e "$root/.env" ] || cp "$root/.env.docker.example" "$root/.env"
cd "$root"
started=$EPOCHREALTIME
"$docker" compose up --detach --wait --remove-orphans
took

#!/bin/bash
# `bazel run //oci:load`: loads the images and prepares the folder for `docker compose up`.
# Arguments: the scripts that load and prepare, the maker of secrets, and what the loading script loads.
set -euo pipefail
load=$1 prepare=$2 secrets=$3
bash "$prepare" "$secrets" "${BUILD_WORKSPACE_DIRECTORY:?run this by bazel run //oci:load}"
exec bash "$load" "${@:4}"

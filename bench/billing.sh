#!/bin/bash
# Measures billing-service alone. The first arguments are the programs, in the order of bench/BUILD.bazel.
set -euo pipefail
bench=$1
shift
exec "$bench" --plain-proxy "$1" --auth "$2" --billing "$3" --chat "$4" --simulator "$5" "${@:6}"

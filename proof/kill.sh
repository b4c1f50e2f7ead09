#!/bin/bash
# Kills the programs of the stack at random instants and looks at the books. The first arguments are the programs, in the order of proof/BUILD.bazel.
set -euo pipefail
drill=$1
shift
exec "$drill" --plain-proxy "$1" --auth "$2" --billing "$3" --chat "$4" --simulator "$5" --stripe "$6" "${@:7}"

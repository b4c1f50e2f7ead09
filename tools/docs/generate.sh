#!/bin/bash
# Writes the documents that are made from the code: the OpenAPI files and the reference of all variables.
set -euo pipefail
cd "$(dirname "$0")/../.."
run() { # run SERVICE ARGUMENT
  ./dev bazel run --noshow_progress --ui_event_filters=-info,-stdout "//services/$1" -- "$2"
}
configuration=docs/operations/CONFIGURATION.md
cat >"$configuration.new" <<'END'
# Configuration

Made from the code by `tools/docs/generate.sh`; tests hold it equal. A variable `NAME` may be given as `NAME_FILE`, the path of a file with the value. Unknown
`TRIVET_*` names and bad values stop the start with one message that lists them all; `--check-config` of `serve` only looks.
END
for service in auth-service chat-service billing-service; do
  run "$service" openapi >"docs/api/$service.json.new"
  mv "docs/api/$service.json.new" "docs/api/$service.json"
  {
    printf '\n## %s\n\n' "$service"
    run "$service" config-docs
  } >>"$configuration.new"
done
mv "$configuration.new" "$configuration"

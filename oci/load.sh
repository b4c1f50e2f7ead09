#!/bin/bash
# Loads images into Docker, all at once; arguments are pairs of a layout folder and its loader. One line for each image.
set -euo pipefail
docker=${DOCKER:-docker}

load() { # load LAYOUT LOADER
  local layout=$1 loader=$2 name manifest config digest size state
  name=$(basename "$layout")
  manifest=$layout/blobs/$(sed -n 's/.*"digest": "\(sha256:[0-9a-f]*\)".*/\1/p' "$layout/index.json" | head -n 1 | tr : /)
  digest=$(basename "$manifest")
  config=$(sed -n 's/.*"digest": "\(sha256:[0-9a-f]*\)".*/\1/p' "$manifest" | head -n 1)
  # The digest of the configuration is the id of the image in Docker.
  size=$(grep -o '"size": [0-9]*' "$manifest" | tail -n +2 | awk '{sum += $2} END {printf "%.1f MB", sum / 1000000}')
  if [ "$("$docker" image inspect --format '{{.Id}}' "trivet/$name:dev" 2>/dev/null)" = "$config" ]; then
    state="already there"
  else
    "$loader" >/dev/null
    state=loaded
  fi
  printf '%-28s sha256:%.12s  %8s  %s\n' "trivet/$name:dev" "$digest" "$size" "$state"
}

# `bazel run` starts in the runfiles folder of this workspace; the loaders look for it by this name.
export RUNFILES_DIR="${RUNFILES_DIR:-$(dirname "$PWD")}"
pids=()
while [ $# -gt 0 ]; do
  load "$1" "./$2" &
  pids+=($!)
  shift 2
done
failed=0
for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
exit "$failed"

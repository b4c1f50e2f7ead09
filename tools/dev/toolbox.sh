# shellcheck shell=bash
# Where commands run: on this machine where Bazelisk and the Central Registry answer, else in the toolbox container.

state=${XDG_CACHE_HOME:-$HOME/.cache}/trivet
container=trivet-dev-$(printf '%s' "$root" | sha256sum | cut -c1-12)

# direct | toolbox; TRIVET_DEV_MODE decides, else whether the registry answers (asked once a day).
toolbox_mode() {
  [ -z "${TRIVET_DEV_MODE:-}" ] || { echo "$TRIVET_DEV_MODE"; return; }
  local answer=$state/mode
  if [ -z "$(find "$answer" -mmin -1440 2>/dev/null)" ]; then
    mkdir -p "$state"
    if command -v bazelisk >/dev/null || command -v bazel >/dev/null; then
      curl --silent --fail --max-time 5 --output /dev/null "$(toolbox_registry)" && echo direct >"$answer" || echo toolbox >"$answer"
    else
      echo toolbox >"$answer"
    fi
  fi
  cat "$answer"
}

toolbox_registry() { echo "https://bcr.bazel.build/bazel_registry.json"; }

# The container runs, from the image of the present recipe, when this returns.
toolbox_ready() {
  machine_docker
  eval "$(tools/toolbox/names.sh)"
  if ! docker image inspect "$IMAGE" >/dev/null 2>&1; then
    machine_package mmdebstrap mmdebstrap
    step "making the toolbox (Bazel, Rust, Postgres; once per recipe)" tools/toolbox/make.sh
  fi
  local running
  running=$(docker container inspect --format '{{.State.Running}} {{.Config.Image}}' "$container" 2>/dev/null || true)
  [ "$running" != "true $IMAGE" ] || return 0
  if [ "${running#* }" != "$IMAGE" ]; then
    docker rm --force "$container" >/dev/null 2>&1 || true
    toolbox_create
  fi
  docker start "$container" >/dev/null
}

toolbox_create() {
  mkdir -p "$state/cargo" "$state/bazel-disk-cache" "$state/output"
  {
    docker run --rm --network none "$IMAGE" cat /etc/passwd
    [ "$(id -u)" = 0 ] || echo "dev:x:$(id -u):$(id -g)::$state:/bin/bash"
  } >"$state/passwd"
  # The caches are shared by all clones; the output base belongs to one checkout.
  cat >"$state/bazelrc" <<EOF
startup --output_user_root=$state/output
common --disk_cache=$state/bazel-disk-cache
common --repository_cache=$state/repository-cache
EOF
  local socket=${DOCKER_HOST:-unix:///var/run/docker.sock}
  socket=${socket#unix://}
  docker create --init --name "$container" --network host --pid host \
    --user "$(id -u):$(id -g)" --group-add "$(stat -c %g "$socket")" \
    --env HOME="$state" --env CARGO_HOME="$state/cargo" --env USER="$(id -un)" \
    --volume "$state:$state" --volume "$root:$root" --volume "$state/passwd:/etc/passwd:ro" \
    --volume "$state/bazelrc:$state/.bazelrc:ro" \
    --volume "$socket:/run/docker.sock" --workdir "$root" \
    "$IMAGE" sleep infinity >/dev/null
}

# cargo-bazel looks for the crate index under its former folder name: a link beside the one that cargo makes.
toolbox_crates() {
  local index=$state/cargo/registry/index dir
  if [ ! -d "$index" ] || [ Cargo.lock -nt "$state/crates-of-$container" ]; then
    docker exec "$container" cargo fetch --quiet --locked || fail "the crates could not be fetched" "does this machine reach a mirror of the crate registry?"
    touch "$state/crates-of-$container"
  fi
  for dir in "$index"/*-1949cf8c6b5b557f; do [ ! -d "$dir" ] || ln -sfn "${dir##*/}" "${dir%-*}-6f17d22bba15001f"; done
}

# in_toolbox COMMAND…: runs it where Bazel is.
in_toolbox() {
  if [ "$(toolbox_mode)" = direct ]; then "$@"; return; fi
  toolbox_ready
  toolbox_crates
  local tty=() environment=() name
  if [ -t 0 ] && [ -t 1 ]; then tty=(--tty); fi
  for name in CI COMPOSE_PROJECT_NAME COMPOSE_PROFILES; do [ -z "${!name:-}" ] || environment+=(--env "$name"); done
  docker exec --interactive "${tty[@]}" "${environment[@]}" "$container" "$@"
}

toolbox_clean() {
  machine_docker
  eval "$(tools/toolbox/names.sh)"
  local image
  for image in $(docker images --format '{{.Repository}}:{{.Tag}}' | grep -E '^trivet/toolbox(-base)?:' || true); do
    if [ "$image" != "$IMAGE" ] && [ "$image" != "$BASE" ]; then step "removing $image" docker rmi --force "$image"; fi
  done
  # Infra images of former recipes, and the containers of checkouts that are gone.
  for image in $(docker images --format '{{.Repository}}:{{.Tag}}' | grep '^trivet/local-' || true); do
    grep -qs "_IMAGE=$image\$" .env || step "removing $image" docker rmi "$image"
  done
  local folder name
  for name in $(docker ps --all --filter name=^trivet-dev- --format '{{.Names}}'); do
    folder=$(docker inspect --format '{{.Config.WorkingDir}}' "$name")
    [ -d "$folder" ] || step "removing the container of $folder" docker rm --force "$name"
  done
  docker image prune --force >/dev/null
  say "done; Bazel's disk cache is $(du --summarize --human-readable "$state/bazel-disk-cache" 2>/dev/null | cut -f1 || echo empty) in $state"
}

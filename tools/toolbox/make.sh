#!/bin/bash
# Makes the toolbox image named by names.sh, if it is not there: a Debian root with Bazel, its rule sets, Rust and the
# container tools. One maker at a time; a broken-off run leaves nothing that a later one could take for an image.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
eval "$("$here/names.sh")"
say() { printf 'toolbox: %s\n' "$*" >&2; }
present() { docker image inspect "$1" >/dev/null 2>&1; }

exec 9>"${TMPDIR:-/tmp}/trivet-toolbox.lock"
flock --nonblock 9 || { say "another run is making the image, waiting for it"; flock 9; }
present "$IMAGE" && exit 0

if ! present "$BASE"; then
  command -v mmdebstrap >/dev/null || { say "mmdebstrap is missing: apt-get install mmdebstrap"; exit 1; }
  mirror=$("$here/../debian-mirror.sh")
  say "making the base (about six minutes, once): $(grep -vc '^#' "$here/packages.txt") packages and what they need"
  started=$SECONDS
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  "$here/bootstrap.sh" "$work/root.tar" "$mirror"
  say "importing the base"
  docker import --change 'ENV LANG=C.UTF-8' "$work/root.tar" "$BASE" >/dev/null
  say "base made in $((SECONDS - started)) s"
fi

started=$SECONDS
container=$(docker create --network none "$BASE" sh /tmp/overlay.sh)
trap 'docker rm --force "$container" >/dev/null; rm -rf "${work:-}" "${sdks:-}"' EXIT
tar -C "$here/root" --owner=0 --group=0 -cf - . | docker cp - "$container:/"
docker cp "$here/overlay.sh" "$container:/tmp/overlay.sh"
sdks=$(mktemp -d)
"$here/sdks.sh" "$sdks"
tar -C "$sdks" --owner=0 --group=0 --transform 's,^\.,opt/stripe-sdks,' -cf - . | docker cp - "$container:/"
docker start --attach "$container" >&2
docker commit --change 'CMD ["/bin/bash"]' "$container" "$IMAGE" >/dev/null
say "image $IMAGE made in $((SECONDS - started)) s"

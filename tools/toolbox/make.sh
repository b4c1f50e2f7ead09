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
  # The package mirror that this machine already uses.
  mirror=$({ grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null || true; } | head -n 1)
  [ -n "$mirror" ] || { say "no Debian mirror in the apt sources of this machine"; exit 1; }
  packages=$(grep -v '^#' "$here/packages.txt" | paste -sd,)
  say "making the base (about six minutes, once): $(grep -vc '^#' "$here/packages.txt") packages and what they need"
  started=$SECONDS
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  mmdebstrap --mode=root --variant=minbase --components=main --quiet \
    --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Check-Date "false"' \
    --aptopt='Acquire::Retries "3"' --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/lib/jvm/*/jmods/*' \
    --essential-hook='mkdir -p "$1/usr/share/man/man1" "$1/usr/local/share/ca-certificates"' \
    --customize-hook="cp /usr/local/share/ca-certificates/*.crt \"\$1/usr/local/share/ca-certificates/\" 2>/dev/null || true" \
    --customize-hook="cp '$here/base.sh' \"\$1/tmp/\" && chroot \"\$1\" sh /tmp/base.sh && rm \"\$1/tmp/base.sh\"" \
    --include="$packages" \
    forky "$work/root.tar" "$mirror"
  say "importing the base"
  docker import --change 'ENV LANG=C.UTF-8' "$work/root.tar" "$BASE" >/dev/null
  say "base made in $((SECONDS - started)) s"
fi

started=$SECONDS
container=$(docker create --network none "$BASE" sh /tmp/overlay.sh)
trap 'docker rm --force "$container" >/dev/null; [ -z "${work:-}" ] || rm -rf "$work"' EXIT
tar -C "$here/root" --owner=0 --group=0 -cf - . | docker cp - "$container:/"
docker cp "$here/overlay.sh" "$container:/tmp/overlay.sh"
docker start --attach "$container" >&2
docker commit --change 'CMD ["/bin/bash"]' "$container" "$IMAGE" >/dev/null
say "image $IMAGE made in $((SECONDS - started)) s"

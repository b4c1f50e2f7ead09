#!/bin/bash
# bootstrap.sh TAR MIRROR: a Debian root with the packages of packages.txt, and what base.sh adds to it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tar=$1 mirror=$2
mode=root
# Without root, in a user namespace.
[ "$(id -u)" = 0 ] || mode=unshare
packages=$(grep -v '^#' "$here/packages.txt" | paste -sd,)
# stripe-mock from its Go module, with Stripe's specification in it. Where it cannot be had, a file says so, and the test that needs it says that
# it did not run (tools/stripe/toolbox.py).
# shellcheck disable=SC2016  # $1 is the root folder, when the hook runs
mock=(--customize-hook='mkdir -p "$1/opt/stripe-sdks/without" && touch "$1/opt/stripe-sdks/without/stripe-mock"')
bin=$(dirname "$tar")/bin
if command -v go >/dev/null && GOBIN=$bin CGO_ENABLED=0 GOFLAGS="-buildvcs=false -trimpath -ldflags=-s" GOTOOLCHAIN=local \
  go install github.com/stripe/stripe-mock@v0.203.0; then
  mock=(--customize-hook="copy-in '$bin/stripe-mock' /usr/local/bin")
fi
# shellcheck disable=SC2016  # $1 is the root folder, when the hook runs
mmdebstrap --mode=$mode --variant=minbase --components=main --quiet \
  --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Check-Date "false"' \
  --aptopt='Acquire::Retries "3"' --aptopt='APT::Install-Recommends "false"' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/lib/jvm/*/jmods/*' \
  --essential-hook='mkdir -p "$1/usr/share/man/man1" "$1/usr/local/share/ca-certificates"' \
  --customize-hook='cp /usr/local/share/ca-certificates/*.crt "$1/usr/local/share/ca-certificates/" 2>/dev/null || true' \
  --customize-hook="cp '$here/base.sh' \"\$1/tmp/\" && chroot \"\$1\" sh /tmp/base.sh && rm \"\$1/tmp/base.sh\"" \
  ${mock[@]+"${mock[@]}"} \
  --include="$packages" \
  forky "$tar" "$mirror"

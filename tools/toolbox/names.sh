#!/bin/bash
# Prints the names of the toolbox's two images: BASE (Debian packages and cargo-bazel) and IMAGE (BASE with root/ over it).
# Each name carries a hash of everything that goes into it, so that a changed recipe is another image.
set -euo pipefail
cd "$(dirname "$0")"
digest() { sha256sum | cut -c1-12; }
base=$(cat packages.txt base.sh bootstrap.sh | digest)
overlay=$({ echo "$base"; cat overlay.sh sdks.sh; find root -type f | LC_ALL=C sort | xargs sha256sum; } | digest)
echo "BASE=trivet/toolbox-base:$base"
echo "IMAGE=trivet/toolbox:$overlay"

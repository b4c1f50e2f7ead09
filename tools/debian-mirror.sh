#!/bin/bash
# Prints the mirror of Debian's packages that this machine uses: TRIVET_DEBIAN_MIRROR, else the first one in its apt sources.
set -euo pipefail
mirror=${TRIVET_DEBIAN_MIRROR:-}
[ -n "$mirror" ] || mirror=$({ grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null || true; } | head -n 1)
if [ -z "$mirror" ]; then
  echo "no mirror of Debian is in the apt sources of this machine: set TRIVET_DEBIAN_MIRROR to the URL of one" >&2
  exit 1
fi
echo "${mirror% }"

#!/bin/sh
# Runs inside the new root (mmdebstrap customize hook): the parts of the base that Debian lacks.
set -eu
update-ca-certificates >/dev/null 2>&1
# Debian keeps every sandbox and names a flag that is gone.
sed -i "/sandbox_debug/d; /host_javabase/d" /etc/bazel/bazelrc
# cargo-bazel from the sources beside the rules, with a lock file reader that knows version 4.
mkdir -p /opt/bazel
cp -r /usr/share/bazel/rules/rust/crate_universe /tmp/cargo-bazel
cd /tmp/cargo-bazel
export CARGO_HOME=/tmp/cargo CARGO_TARGET_DIR=/tmp/target
cargo update --quiet --package cargo-lock --precise 10.1.0
cargo install --quiet --locked --path . --root /opt/bazel/cargo-bazel
rm -rf /tmp/cargo /tmp/target /tmp/cargo-bazel

#!/bin/sh
# Runs in a container of the base after the files of root/ were laid over it: wires Debian's rule sets and Rust into the places Bazel looks.
set -eu
cd /opt/bazel
rm -rf rules_rust
cp -r /usr/share/bazel/rules/rust rules_rust
# Newer releases moved the extension; answer to the new name too.
printf 'load(":extension.bzl", _crate = "crate")\n\ncrate = _crate\n' > rules_rust/crate_universe/extensions.bzl
mkdir -p rust_toolchains/bin rust_toolchains/lib rust_host_tools/bin
for tool in cargo cargo-clippy clippy-driver rustc rustdoc rustfmt; do ln -sf /usr/bin/$tool rust_toolchains/bin/$tool; done
ln -sfn /usr/lib/rustlib rust_toolchains/lib/rustlib
for tool in cargo rustc; do ln -sf /usr/bin/$tool rust_host_tools/bin/$tool; done
for dir in stubs/* rules_oci rust_toolchains rust_host_tools; do touch "$dir/BUILD.bazel" "$dir/REPO.bazel"; done
# The compose plugin where the docker client looks for it.
mkdir -p /usr/local/lib/docker/cli-plugins
for plugin in /usr/libexec/docker/cli-plugins/docker-compose /usr/bin/docker-compose; do
  if [ -x "$plugin" ] && [ ! -e /usr/local/lib/docker/cli-plugins/docker-compose ]; then ln -s "$plugin" /usr/local/lib/docker/cli-plugins/docker-compose; fi
done
# The mirror may have moved on: say so, so that a build that fails for it is understood.
grep -v '^#' /opt/bazel/proved.txt | while read -r package proved; do
  found=$(dpkg-query --show --showformat '${Version}' "$package")
  case "$found" in
    "$proved" | "$proved"[-+~]*) ;;
    *) echo "toolbox: $package is $found here; it was proved with $proved" ;;
  esac
done

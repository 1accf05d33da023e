#!/bin/sh
# Prints, as Markdown for a comment on a pull request, what a change of a bundle does to the nodes.
# usage: diff-comment.sh BASE [BUNDLE]   BASE is a branch, tag or commit of this repository; BUNDLE a directory in it.
# Exit code: 0 with or without differences, 1 if the bundle is refused; then the problems are the comment.
set -eu
base=${1:?usage: diff-comment.sh BASE [BUNDLE]}
bundle=${2:-.}
root=$(git rev-parse --show-toplevel)
commit=$(git rev-parse --verify "$base^{commit}")
if ! problems=$(danmctl validate "$root//$bundle" 2>&1); then
	printf '**The bundle `%s` is refused:**\n\n```\n%s\n```\n' "$bundle" "$problems"
	exit 1
fi
code=0
danmctl diff "git+file://$root//$bundle?ref=$commit" "$root//$bundle" -o markdown || code=$?
[ "$code" -le 1 ]

#!/bin/sh
# Builds the programs of the test bed's Kubernetes from Go modules, pinned in test/cluster/modules, and prints where they are: one
# directory with all of them, the CNI plugins in its cni/. About 10 minutes on two cores when nothing is cached.
# Each set is cached under a key of its own pins, so a change of one set, or of this script, builds no other again.
set -eu
cd "$(dirname "$0")/modules"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/danm-testbed

key() { # key SET
	cat "$1/go.mod" "$1/go.sum" "$1/tools.go" | sha256sum | cut -c1-16
}
packages() { # packages SET
	sed -n 's/.*_ "\(.*\)"$/\1/p' "$1/tools.go"
}

build() { # build SET LDFLAGS
	out=$cache/$1-$(key "$1")
	[ ! -d "$out" ] || return 0
	new=$out.$$ # a directory with its final name is complete
	mkdir -p "$new"
	for p in $(packages "$1"); do
		echo "test bed: building $p" >&2
		(cd "$1" && GOFLAGS=-mod=readonly CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w $2" -o "$new/$(program "$p")" "$p")
	done
	mv -T "$new" "$out" 2>/dev/null || rm -rf "$new" # another run was first
}
program() { # program PACKAGE
	case $1 in go.etcd.io/etcd/server/v3) echo etcd ;; *) basename "$1" ;; esac
}

k8s=$(sed -n 's/^require k8s.io\/kubernetes //p' kubernetes/go.mod)
build etcd ""
build kubernetes "-X k8s.io/component-base/version.gitVersion=$k8s"
build containerd ""
build plugins ""

all=$cache/bed-$(for s in etcd kubernetes containerd plugins; do key $s; done | sha256sum | cut -c1-16)
if [ ! -d "$all" ]; then
	mkdir -p "$all.$$/cni"
	for s in etcd kubernetes containerd; do ln "$cache/$s-$(key $s)"/* "$all.$$/"; done
	ln "$cache/plugins-$(key plugins)"/* "$all.$$/cni/"
	mv -T "$all.$$" "$all" 2>/dev/null || rm -rf "$all.$$"
fi
echo "$all"

#!/bin/sh
# Builds the programs of the test bed's Kubernetes from Go modules, pinned in test/cluster/modules, and prints where they are.
# About 10 minutes on two cores when nothing is cached; nothing is built twice: the directory is named by the pins.
#   test/cluster/build.sh          all: control plane, nodes
set -eu
cd "$(dirname "$0")/modules"

k8s=$(sed -n 's/^require k8s.io\/kubernetes //p' kubernetes/go.mod)
pins=$(cat ./*/go.mod ./*/go.sum ./*/tools.go ../build.sh | sha256sum | cut -c1-16)
bin=${XDG_CACHE_HOME:-$HOME/.cache}/danm-testbed/$pins
if [ -e "$bin/complete" ]; then
	echo "$bin"
	exit 0
fi
mkdir -p "$bin"

build() { # build MODULE LDFLAGS OUTPUT PACKAGE...
	module=$1 flags=$2 out=$3
	shift 3
	echo "test bed: building $*" >&2
	(cd "$module" && GOFLAGS=-mod=readonly CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w $flags" -o "$out" "$@")
}
version="-X k8s.io/component-base/version.gitVersion=$k8s"
build etcd "" "$bin/etcd" go.etcd.io/etcd/server/v3
build kubernetes "$version" "$bin/" k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kubectl
build kubernetes "$version" "$bin/" k8s.io/kubernetes/cmd/kube-controller-manager k8s.io/kubernetes/cmd/kube-scheduler \
	k8s.io/kubernetes/cmd/kubelet k8s.io/kubernetes/cmd/kube-proxy
build containerd "" "$bin/" github.com/containerd/containerd/v2/cmd/containerd \
	github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2 github.com/containerd/containerd/v2/cmd/ctr
: >"$bin/complete"
echo "$bin"

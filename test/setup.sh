#!/bin/sh
# Installs the system packages that the tests need: as root on Debian or Ubuntu, unless DANM_TEST_SETUP=0.
# An ordinary user's system is never touched: what is missing is named, with the one command that installs it.
set -eu

missing=
need() { # need COMMAND PACKAGE
	command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need git git
need gcc gcc
need ip iproute2
need ping iputils-ping
need ssh openssh-client
need systemd-analyze systemd
if [ "$(id -u)" = 0 ]; then # whole Kubernetes nodes, which nobody else can start
	need runc runc
	need busybox busybox-static
	need nft nftables
	need sysctl procps
fi
if command -v gcc >/dev/null 2>&1; then
	printf '#include <stdlib.h>\n' | gcc -E - >/dev/null 2>&1 || missing="$missing libc6-dev"
else
	missing="$missing libc6-dev"
fi
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"

[ -n "$missing" ] || exit 0
install="apt-get update && apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" = 0 ] && [ "${DANM_TEST_SETUP:-1}" != 0 ] && command -v apt-get >/dev/null 2>&1; then
	echo "test setup: installing$missing"
	apt-get update -q >/dev/null
	# shellcheck disable=SC2086 # a list of package names
	DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $missing >/dev/null
else
	echo "test setup: missing$missing; tests that need them are skipped. To install: sudo sh -c '$install'"
fi

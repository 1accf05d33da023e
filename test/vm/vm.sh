#!/usr/bin/env bash
# A stock Debian kernel in QEMU (software emulation, no KVM), with the link kinds that a container's kernel lacks.
#
#   vm.sh build           get the kernel and make the initial RAM disk, into .cache/vm of the repository; nothing if it is there
#   vm.sh run CMD ARG..   boot, run CMD, print what it prints, exit as it exits (124: it did not end in time)
#   vm.sh exec BIN ARG..  the same for a test binary, in the directory that `go test -exec` starts it in
#
# Inside, the root file system is this machine's, read-only, with fresh /tmp and /run; the repository stands at /srv, a writable
# directory at /mnt (VM_SHARE names one that outlives the run), and, if VM_DISK names a file with an ext4 file system, that at
# /media: what is not synced there is lost with the machine. VM_MEMORY, VM_TIMEOUT in seconds.
#
# VM_SRIOV=1 boots the other machine: two Intel 82576 cards on one wire, 0000:01:00.0 and 0000:02:00.0, with 7 virtual functions
# each, behind an IOMMU, so that vfio-pci binds them. QEMU has that card since 8.1: build gets one for the cache where the system's
# is older, and without it the machine is skipped (exit 3).
set -euo pipefail

repo=$(cd "$(dirname "$0")/../.." && pwd)
cache=$repo/.cache/vm
packages="qemu-system-x86 busybox-static cpio kmod e2fsprogs"
simulator="make gcc bc xz-utils linux-headers-amd64 linux-source-6.1" # netdevsim is built: Debian's kernel has no module of it
modules="virtio_pci virtio_blk virtio_net psample ext4 9p 9pnet_virtio 8021q ipvlan macvlan vxlan dummy bonding vrf veth bridge tun nf_tables nft_chain_nat nft_ct nft_masq nft_nat nft_reject_inet nft_log nft_limit sch_htb sch_ingress act_mirred"
sriov_modules="igb igbvf vfio_iommu_type1 vfio-pci" # the other machine loads them as well

can_build() {
	if ! command -v apt-get >/dev/null || [ "$(dpkg --print-architecture 2>/dev/null)" != amd64 ]; then
		echo "vm: skipped: the kernel comes from Debian's packages for amd64"
	elif [ "${DANM_TEST_SETUP:-1}" = 0 ] || [ "$(id -u)" != 0 ]; then
		command -v qemu-system-x86_64 >/dev/null && [ -x /bin/busybox ] && command -v cpio >/dev/null && command -v modprobe >/dev/null && return 0
		echo "vm: skipped: needs $packages (sudo apt-get install -y --no-install-recommends $packages)"
	else
		return 0
	fi
	return 1
}

install_packages() {
	if command -v qemu-system-x86_64 >/dev/null && [ -x /bin/busybox ] && command -v cpio >/dev/null && command -v modprobe >/dev/null; then
		return
	fi
	echo "vm: installing $packages"
	apt-get update -q >/dev/null
	# shellcheck disable=SC2086 # a list of package names
	DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $packages >/dev/null
}

fetch_kernel() { # into $cache/kernel; prints the version
	local package
	cd "$cache"
	rm -rf kernel ./*.deb
	[ -n "$(apt-cache depends linux-image-amd64 2>/dev/null)" ] || apt-get update -q >/dev/null
	package=$(apt-cache depends linux-image-amd64 | awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; exit }')
	chmod a+rwx . # apt's download user writes here
	# A mirror may fail for a moment, or have a newer version than the lists know.
	if ! apt-get download -q "$package" >kernel.log 2>&1 && ! { apt-get update -q && apt-get download -q "$package"; } >>kernel.log 2>&1; then
		echo "vm: no kernel: $(grep -m1 '^E:' kernel.log || tail -1 kernel.log)" >&2
		return 1
	fi
	rm -f kernel.log
	dpkg -x linux-image-*.deb kernel
	rm -f linux-image-*.deb
	depmod -b kernel "${package#linux-image-}"
	echo "${package#linux-image-}"
}

# build_netdevsim KERNEL-VERSION: the kernel's simulated network card, from the sources of the same version, into $cache.
build_netdevsim() {
	local sources=/usr/src/linux-source-6.1.tar.xz
	if [ ! -e "$sources" ] || [ ! -e "/usr/src/linux-headers-$1" ]; then
		if [ "${DANM_TEST_SETUP:-1}" = 0 ] || [ "$(id -u)" != 0 ]; then
			echo "vm: no netdevsim: needs $simulator" >&2
			return
		fi
		echo "vm: installing $simulator" >&2
		# shellcheck disable=SC2086 # a list of package names
		DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends ${simulator/linux-headers-amd64/linux-headers-$1} >/dev/null
	fi
	rm -rf "$cache/source"
	mkdir -p "$cache/source"
	tar -xf "$sources" -C "$cache/source" --strip-components 1 linux-source-6.1/drivers/net/netdevsim
	make -s -C "/usr/src/linux-headers-$1" M="$cache/source/drivers/net/netdevsim" CONFIG_NETDEVSIM=m modules >"$cache/netdevsim.log" 2>&1 || {
		tail -5 "$cache/netdevsim.log" >&2
		return 1
	}
	strip -g -o "$cache/netdevsim.ko" "$cache/source/drivers/net/netdevsim/netdevsim.ko"
	rm -rf "$cache/source"
}

has_igb() { [[ $("$@" -device igb,help 2>/dev/null) == "igb options"* ]]; } # 7.2 says no and exits with 0

# fetch_qemu: a QEMU with SR-IOV cards, from Debian's backports into $cache/qemu. apt verifies what it gets, by lists of its own: the
# system's sources, lists and packages stay as they are.
fetch_qemu() {
	if [ -e "$cache/qemu" ] || has_igb qemu-system-x86_64; then
		return
	fi
	# shellcheck disable=SC1091 # the system's
	if [ "${DANM_TEST_SETUP:-1}" = 0 ] || [ "$(id -u)" != 0 ] || [ "$(. /etc/os-release && echo "${VERSION_CODENAME:-}")" != bookworm ]; then
		return
	fi
	local apt=$cache/apt deb suite options
	rm -rf "$apt" "$cache/qemu.new"
	mkdir -p "$apt"/{lists,archives}/partial
	for suite in bookworm bookworm-backports; do
		echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $suite main"
	done >"$apt/sources.list"
	options=(-q -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferences=/dev/null
		-o Dir::Etc::preferencesparts=/dev/null -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt" -o APT::Sandbox::User=root
		-o Acquire::Languages=none -o Acquire::http::Timeout=20 -o APT::Update::Error-Mode=any)
	if apt-get "${options[@]}" update >"$cache/qemu.log" 2>&1 && apt-get "${options[@]}" install -y --no-install-recommends \
		--download-only -t bookworm-backports qemu-system-x86 >>"$cache/qemu.log" 2>&1; then
		for deb in "$apt"/archives/*.deb; do
			dpkg -x "$deb" "$cache/qemu.new"
		done
		rm -rf "$cache"/qemu.new/usr/share/{doc,man} "$cache/qemu.new/usr/bin/qemu-system-i386"
		mv "$cache/qemu.new" "$cache/qemu"
		echo "vm: a QEMU with SR-IOV cards is ready"
	else
		echo "vm: no QEMU with SR-IOV cards: $(grep -m1 '^E:' "$cache/qemu.log" || tail -1 "$cache/qemu.log")"
	fi
	rm -rf "$apt"
}

module_files() { # module_files KERNEL-VERSION MODULE..: with what they need, in the order of loading
	local module
	for module in "${@:2}"; do
		modprobe -d "$cache/kernel" -S "$1" --show-depends "$module" | awk '$1 == "insmod" { print $2 }'
	done
}

make_disk() { # make_disk KERNEL-VERSION
	local disk=$cache/disk n=100 kind= file
	rm -rf "$disk"
	mkdir -p "$disk"/{bin,modules,proc,sys,dev,root}
	cp /bin/busybox "$disk/bin/"
	# shellcheck disable=SC2086 # lists of names
	{ module_files "$1" $modules && echo sriov && module_files "$1" $sriov_modules; } | awk '!seen[$0]++' | while read -r file; do
		if [ "$file" = sriov ]; then
			kind=sriov-
			continue
		fi
		cp "$file" "$disk/modules/$kind$n.ko"
		n=$((n + 1))
	done
	[ ! -e "$cache/netdevsim.ko" ] || cp "$cache/netdevsim.ko" "$disk/modules/999.ko"
	cp "$repo/test/vm/init" "$disk/init"
	chmod +x "$disk/init"
	(cd "$disk" && find . | cpio -o -H newc --quiet | gzip -1) >"$cache/disk.gz.new"
	mv "$cache/disk.gz.new" "$cache/disk.gz"
	rm -rf "$disk"
}

build() {
	can_build || return 3
	mkdir -p "$cache"
	install_packages
	fetch_qemu
	if [ "$cache/disk.gz" -nt "$repo/test/vm/init" ] && [ "$cache/disk.gz" -nt "$repo/test/vm/vm.sh" ]; then
		return
	fi
	local version
	version=$(fetch_kernel)
	build_netdevsim "$version"
	make_disk "$version"
	rm -f "$cache/vmlinuz"
	cp "$cache/kernel/boot/vmlinuz-$version" "$cache/vmlinuz"
	rm -rf "$cache/kernel" # 400 MB of modules that nobody loads
	echo "vm: kernel $version is ready"
}

# use_sriov: the other machine, in the variables of boot.
use_sriov() {
	local root=$cache/qemu/usr
	if [ -e "$cache/qemu" ]; then
		qemu=(env "LD_LIBRARY_PATH=$root/lib/x86_64-linux-gnu" "QEMU_MODULE_DIR=$root/lib/x86_64-linux-gnu/qemu"
			"$root/bin/qemu-system-x86_64" -L "$root/share/qemu" -L "$root/share/seabios")
	fi
	if ! has_igb "${qemu[@]}"; then
		echo "vm: skipped: no QEMU with SR-IOV cards: needs 8.1 or newer, which vm.sh build gets as root on Debian 12, from its backports"
		return 3
	fi
	machine=(-machine q35 -device intel-iommu,intremap=on
		-netdev hubport,id=wire0,hubid=0 -device pcie-root-port,id=port0,slot=0 -device igb,bus=port0,netdev=wire0,mac=52:54:00:da:05:00
		-netdev hubport,id=wire1,hubid=0 -device pcie-root-port,id=port1,slot=1 -device igb,bus=port1,netdev=wire1,mac=52:54:00:da:06:00)
	append+=" intel_iommu=on iommu=pt no_timer_check sriov" # on a busy machine the check finds too few ticks, and panics
}

# boot SHARE DIRECTORY CMD ARG..: the command goes in and its exit code comes out through files in SHARE.
boot() {
	local share=$1 directory=$2
	shift 2
	rm -f "$share/exit"
	{
		echo "export PATH=/usr/local/go/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp DANM_BIN=/srv/bin"
		printf 'cd %q\n' "$directory"
		printf '%q ' "$@"
		echo
	} >"$share/command"
	local disk=() qemu=(qemu-system-x86_64) machine=() append="console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off"
	[ -z "${VM_DISK:-}" ] || disk=(-drive "file=$VM_DISK,format=raw,if=virtio")
	[ -z "${VM_SRIOV:-}" ] || use_sriov || return
	timeout "${VM_TIMEOUT:-300}" "${qemu[@]}" "${machine[@]}" -accel tcg,thread=multi -cpu max -smp 2 -m "${VM_MEMORY:-2G}" \
		-nodefaults -no-reboot -display none -serial stdio -kernel "$cache/vmlinuz" -initrd "$cache/disk.gz" \
		-append "$append" \
		-device virtio-net-pci,mac=52:54:00:da:03:01,addr=0x9,romfile= "${disk[@]}" \
		-virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
		-virtfs "local,path=$repo,mount_tag=repo,security_model=none,readonly=on,multidevs=remap" \
		-virtfs "local,path=$share,mount_tag=share,security_model=none" </dev/null | tr -d '\r' | grep -av '^\[ .*reboot: Power down$' || true
	return "$(cat "$share/exit" 2>/dev/null || echo 124)"
}

with_share() { # with_share FUNCTION ARG..: FUNCTION gets the directory first
	if [ -n "${VM_SHARE:-}" ]; then
		local call=$1
		shift
		"$call" "$VM_SHARE" "$@"
		return
	fi
	share=$(mktemp -d)
	trap 'rm -rf "$share"' EXIT
	local call=$1
	shift
	"$call" "$share" "$@"
}

run_here() { boot "$1" /srv "${@:2}"; }

exec_test() {
	local share=$1 binary=$2 directory=${PWD#"$repo"}
	shift 2
	cp "$binary" "$share/test"
	boot "$share" "/srv$directory" /mnt/test "$@"
}

case ${1:-} in
build) build ;;
sriov) qemu=(qemu-system-x86_64) && use_sriov ;;
run) shift && with_share run_here "$@" ;;
exec) shift && with_share exec_test "$@" ;;
*)
	sed -n '4,6p' "$0" >&2
	exit 2
	;;
esac

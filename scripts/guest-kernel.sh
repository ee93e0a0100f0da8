#!/usr/bin/env bash
# Runs a command as root under a kernel that has ipip, and ends with its status.
#
#   scripts/guest-kernel.sh COMMAND [ARGUMENT…]
#   scripts/guest-kernel.sh --emulate COMMAND [ARGUMENT…]
#   scripts/guest-kernel.sh --prepare      only downloads and tries it
#
# That is the running kernel if it has ipip. Otherwise, and with --emulate, it is
# Debian's, which nobody has used before, emulated by qemu with the same files,
# environment and working directory. It does not reach the machine's network, and
# what it writes is lost when it ends. The command's standard input is empty, and
# all it prints goes to the standard output. After WEIR_GUEST_TIMEOUT seconds
# (1500) it is given up. WEIR_GUEST_KERNEL is added to the emulated kernel's command line.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

GUEST=$TOOLS/guest-kernel
TIMEOUT=${WEIR_GUEST_TIMEOUT:-1500}
# What the guest needs before it sees the machine's files.
EARLY_MODULES=(virtio_pci 9pnet_virtio 9p overlay)

has_ipip() {
    # The addresses make it differ from the tunl0 that the module brings.
    as_root unshare --net \
        ip link add weir0 type ipip local 192.0.2.1 remote 192.0.2.2 2>/dev/null
}

# Unpacks the Debian package $1 into the new directory $2, which is the only
# place that changes.
unpack() {
    echo "downloading Debian's $1"
    mkdir -p "$2"
    (
        cd "$2"
        quietly apt-get download "$1" ||
            { quietly as_root apt-get update -qq && quietly apt-get download "$1"; } ||
            fail "apt-get could not download $1; see above"
        dpkg-deb --extract ./*.deb .
        rm ./*.deb
        # Later packages have these in /usr alone.
        [[ -e bin ]] || ln -s usr/bin .
        [[ -e lib ]] || ln -s usr/lib .
    )
}

# The name of the package with the kernel itself.
kernel_package() {
    apt-cache depends linux-image-amd64 2>/dev/null |
        sed -nE 's/^ *Depends: (linux-image-[0-9].*)/\1/p' | head -n 1
}

# Makes $GUEST: the kernel with its modules, and busybox.
build_guest() {
    local building=$GUEST.new package version
    [[ $(dpkg --print-architecture) == amd64 ]] ||
        fail "only amd64 can be emulated; where no emulation is asked for, load the module ipip"
    package=$(kernel_package)
    [[ -n $package ]] || { as_root apt-get update -qq && package=$(kernel_package); }
    [[ -n $package ]] ||
        fail "apt knows no linux-image-amd64; where no emulation is asked for, load the module ipip"
    rm -rf "$building"
    unpack "$package" "$building/kernel"
    unpack busybox-static "$building/busybox"
    version=${package#linux-image-}
    echo "$version" >"$building/version"
    # Later Debian kernels have them compressed, as busybox cannot load them.
    find "$building/kernel" -name '*.ko.xz' -exec xz --decompress {} +
    depmod --basedir "$building/kernel" "$version"
    mv "$building" "$GUEST"
}

# Makes $GUEST unless it is there already. Of several scripts one does it.
prepare() {
    mkdir -p "$TOOLS"
    exec {lock}>"$GUEST.lock"
    flock "$lock"
    install_packages qemu-system-x86 kmod cpio xz-utils
    [[ -d $GUEST ]] || build_guest
    exec {lock}>&-
}

# Makes the initramfs, directory $1/initramfs and file $1/initramfs.cpio: busybox,
# the early modules in the order in which they are to be loaded, and
# scripts/guest-init.sh.
make_initramfs() {
    local root=$1/initramfs module
    mkdir -p "$root/bin" "$root/modules"
    cp "$GUEST/busybox/bin/busybox" "$root/bin/"
    install -m 755 "$REPOSITORY/scripts/guest-init.sh" "$root/init"
    modprobe --dirname "$GUEST/kernel" --set-version "$VERSION" --show-depends --all \
        "${EARLY_MODULES[@]}" | sed -nE 's/^insmod ([^ ]+) *$/\1/p' | awk '!seen[$0]++' |
        while read -r module; do
            cp "$module" "$root/modules/"
            basename "$module" >>"$root/modules/order"
        done
    (cd "$root" && find . | cpio --quiet --create --format newc) >"$1/initramfs.cpio"
}

# What the guest is to run: the command with this environment and directory.
# It ends by a reset, which ends qemu.
start_script() {
    # shellcheck disable=SC2034 # used by the script that is printed
    local command=("$@")
    export -p
    declare -p command
    printf 'cd %q\n' "$PWD"
    cat <<'END'
"${command[@]}" </dev/null >/run/guest/log 2>&1
echo $? >/run/guest/status
echo b >/proc/sysrq-trigger
END
}

# Becomes the guest, with the directory $1 as its share. Ends as timeout does.
boot() {
    # shellcheck disable=SC2054 # the commas are qemu's
    local qemu=(
        qemu-system-x86_64 -no-user-config -nodefaults -no-reboot
        -display none -serial "file:$1/console"
        # What makes emulation slower and is of no use here is left out: the
        # guest is as safe as this machine's own processes.
        -machine q35,hpet=off -accel tcg,thread=multi,tb-size=512
        -cpu max,la57=off,avx=off,avx2=off,smap=off,smep=off -smp 2 -m 4G
        -kernel "$GUEST/kernel/boot/vmlinuz-$VERSION" -initrd "$1/initramfs.cpio"
        -append "console=ttyS0 loglevel=4 panic=-1 mitigations=off init_on_alloc=0 nowatchdog ${WEIR_GUEST_KERNEL:-}"
        -virtfs local,path=/,mount_tag=machine,security_model=none,multidevs=remap,readonly=on
        -virtfs "local,path=$1,mount_tag=share,security_model=none"
    )
    # It must not outlive this script, even when that is killed.
    exec setpriv --pdeathsig TERM timeout --kill-after=10 "$TIMEOUT" "${qemu[@]}" </dev/null
}

# Ends the guest, if there is one, and takes its share away.
clean_up() {
    [[ -z $guest ]] || kill "$guest" 2>/dev/null || true
    rm -rf "$share"
}

# Runs a command under the guest kernel.
run_in_guest() {
    local status=0
    guest=
    share=$(mktemp -d)
    trap clean_up EXIT
    VERSION=$(<"$GUEST/version")
    make_initramfs "$share"
    echo "$GUEST/kernel/lib/modules/$VERSION" >"$share/modules"
    start_script "$@" >"$share/start"
    touch "$share/log"
    boot "$share" &
    guest=$!
    tail --lines=+1 --follow --pid="$guest" "$share/log" &
    wait "$guest" || status=$?
    guest=
    wait
    if [[ -s $share/status ]]; then
        return "$(<"$share/status")"
    fi
    tail --lines=30 "$share/console" >&2 || true
    ((status != 124)) || fail "not done after $TIMEOUT s (WEIR_GUEST_TIMEOUT): $*"
    fail "the guest kernel ended with no word of how this ended (see above): $*"
}

(($# > 0)) || fail "what is to be run? See the head of this script"
install_packages "${NETWORK_PACKAGES[@]}"
emulate=false
if [[ $1 == --emulate ]]; then
    emulate=true
    shift
    (($# > 0)) || fail "what is to be run? See the head of this script"
fi
if ! "$emulate" && has_ipip; then
    [[ $1 == --prepare ]] || as_root "$@"
else
    prepare
    [[ $1 != --prepare ]] || set -- modprobe ipip
    run_in_guest "$@"
fi

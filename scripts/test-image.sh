#!/usr/bin/env bash
# Builds the container image of Weir, and runs it by podman as conf/kubernetes/weir.yaml says: the
# init container installs the plugins, the agent runs beside an etcd, and cnitool attaches
# containers on the node. Then upgrades the image while a ping goes on, by the command lines of
# conf/podman/weir-node-podman.service, and removes everything.
#
# Usage: scripts/test-image.sh [PROGRAMS]
#
# Without PROGRAMS it takes the release programs that are built. The node has network, mount and
# process namespaces of its own.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

MANIFEST=$REPOSITORY/conf/kubernetes/weir.yaml
UNIT=$REPOSITORY/conf/podman/weir-node-podman.service
NETWORK=pods
NODE=n1
HEALTH=127.0.0.1/9098

check_files() {
    echo "== 1. The manifest and the unit"
    need_go
    (cd "$REPOSITORY/scripts/manifest" && GOFLAGS=-modcacherw quietly "$GO" build -o "$work/manifest" .) ||
        fail "scripts/manifest does not build; see above"
    "$work/manifest" "$MANIFEST"
    sed 's/hostNetwork/hostNetwrok/' "$MANIFEST" >"$work/misspelt.yaml"
    ! "$work/manifest" "$work/misspelt.yaml" 2>/dev/null || fail "a misspelt field is not refused"
    quietly systemd-analyze verify "$UNIT" || fail "systemd does not take $UNIT; see above"
    local file
    for file in "$MANIFEST" "$UNIT"; do
        expect "$(grep -o 'localhost/weir:[^ ]*' "$file" | sort | uniq -c | tr -s ' ')" \
            " 2 localhost/weir:$version"
    done
}

# Compares what was found with what is expected.
expect() {
    [[ $1 == "$2" ]] || fail "expected:"$'\n'"$2"$'\n'"found:"$'\n'"$1"
}

# Runs a container of the manifest: run_container NAME CONTAINER IMAGE [OPTION...] -- [ARGUMENT...]
run_container() {
    local name=$1 container=$2 image=$3 flags=() options=() flag
    shift 3
    while [[ $1 != -- ]]; do
        options+=("$1")
        shift
    done
    shift
    while IFS= read -r -d '' flag; do
        [[ $flag != "localhost/weir:$version" ]] || flag=$image
        flags+=("$flag")
    done < <("$work/manifest" "$MANIFEST" "$container" "$NODE" "$work/secrets")
    podman run --name "$name" "${options[@]}" "${flags[@]}" "$@"
}

install_cni() {
    run_container install-cni install-cni "$1" --rm -- "${@:2}"
}

# Runs a command line of the unit, which begins with $1, with the newer image.
run_of_unit() {
    local text line=()
    text=$(sed -nE "\\|^$1|,/[^\\]\$/p" "$UNIT" | sed -E 's/^[A-Za-z]+=//; s/\\$//' | tr '\n' ' ')
    read -ra line <<<"${text//localhost\/weir:$version/$new}"
    "${line[@]}" "${@:2}"
}

start_agent() {
    run_container weir-node agent "$1" --detach -- >/dev/null
    wait_for "the agent is ready" is_ready
}

start_agent_of_unit() {
    run_of_unit ExecStart= "$@" >"$work/agent.log" 2>&1 &
    wait_for "the agent is ready" is_ready
}

stop_agent() {
    quietly podman stop --time 10 weir-node
    quietly podman rm --force --ignore weir-node
}

is_ready() {
    local answer
    answer=$({ exec 3<>"/dev/tcp/$HEALTH" && printf 'GET /readiness HTTP/1.0\r\n\r\n' >&3 && head -n 1 <&3; } 2>/dev/null) &&
        [[ $answer == *" 200 "* ]]
}

# Shows what etcd and the agent said, if the test failed.
show_logs() {
    (($1 == 0)) || cat "$work"/*.log >&2
    (($1 == 0)) || podman logs weir-node >&2 || true
}

# Waits up to 20 s for a command to succeed: wait_for WHAT COMMAND...
wait_for() {
    local tried what=$1
    shift
    for ((tried = 0; tried < 200; tried++)); do
        ! "$@" || return 0
        sleep 0.1
    done
    echo "$(basename "$0"): after 20 s it is not so that $what" >&2
    return 1
}

make_certificates() {
    local name
    mkdir -p "$work/secrets/weir-etcd"
    (
        cd "$work/secrets"
        quietly openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 \
            -subj /CN=authority -keyout ca.key -out ca.pem
        for name in server client; do
            quietly openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" \
                -addext subjectAltName=IP:127.0.0.1 -keyout "$name.key" -out "$name.csr"
            quietly openssl x509 -req -in "$name.csr" -CA ca.pem -CAkey ca.key -CAcreateserial \
                -days 1 -copy_extensions copy -out "$name.pem"
        done
        cp ca.pem weir-etcd/etcd-ca
        cp client.pem weir-etcd/etcd-cert
        cp client.key weir-etcd/etcd-key
    )
}

start_etcd() {
    local secrets=$work/secrets
    etcd --data-dir "$work/etcd" --log-level error \
        --listen-client-urls https://127.0.0.1:2379 --advertise-client-urls https://127.0.0.1:2379 \
        --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
        --initial-cluster default=http://127.0.0.1:2380 --client-cert-auth \
        --trusted-ca-file "$secrets/ca.pem" --cert-file "$secrets/server.pem" \
        --key-file "$secrets/server.key" >"$work/etcd.log" 2>&1 &
    wait_for "etcd answers" quietly_get
}

of_etcd() {
    ETCDCTL_API=3 etcdctl --endpoints https://127.0.0.1:2379 --cacert "$work/secrets/ca.pem" \
        --cert "$work/secrets/client.pem" --key "$work/secrets/client.key" "$@"
}

# Keys and values of etcd below a prefix.
get() {
    of_etcd get --prefix "$1"
}

# Lets the addresses in the first block be a year old: what is younger than a minute may belong to
# a call that is still at work.
let_addresses_age() {
    local key
    key=$(of_etcd get --prefix --keys-only --limit 1 /calico/ipam/v2/assignment/ | head -n 1)
    of_etcd get --print-value-only "$key" |
        sed -E 's/"timestamp":"[0-9]{4}-/"timestamp":"2020-/g' | of_etcd put "$key" >/dev/null
}

quietly_get() {
    get /x >/dev/null 2>&1
}

# The machine that a node is recorded for, and those that its addresses are.
machines() {
    get "$1" | grep -oE '"machine":"[0-9a-f]{16}"' | sort -u
}

attach() {
    local name result
    for name in "$@"; do
        ip netns add "$name"
        result=$(cnitool add "$NETWORK" "/run/netns/$name")
        addresses[$name]=$(first_address <<<"$result")
        [[ -n ${addresses[$name]} ]] || fail "no address in the result: $result"
        echo "$name has ${addresses[$name]}"
    done
}

# Whether weirctl says something about an address: says_of ADDRESS TEXT
says_of() {
    local shown
    shown=$(podman exec weir-node weirctl ipam show --ip "$1") && [[ $shown == *"$2"* ]]
}

first_start() {
    echo "== 3. The init container"
    local files=(/opt/cni/bin/weir /opt/cni/bin/weir-ipam /etc/cni/net.d/weir-tls/etcd-{ca,cert,key}
        /etc/cni/net.d/10-weir.conflist)
    expect "$(install_cni "$old")" "$(printf 'changed %s\n' "${files[@]}")"
    expect "$(install_cni "$old")" "$(printf 'unchanged %s\n' "${files[@]}")"
    expect "$(stat -c '%a' "${files[@]}" | tr '\n' ' ')" "755 755 600 600 600 600 "
    echo "== 4. The agent"
    start_agent "$old"
    podman exec weir-node weirctl init
    expect "$(head -n 1 /var/lib/weir/nodename)" "$NODE"
    # A container can write parameters by what is mounted for that alone.
    wait_for "the agent has switched forwarding on" grep -q 1 /proc/sys/net/ipv4/ip_forward
}

two_containers() {
    echo "== 5. Two containers, attached on the node"
    attach web api
    ip netns exec web ping -n -q -c 1 -W 2 "${addresses[api]}" >/dev/null || fail "web does not reach api"
    echo "web reaches api"
    # The plugins on the node see that it is the agent who keeps it, and both see one machine.
    grep -q '"agent"' <(head -n 1 /run/weir/state.json) || fail "/run/weir/state.json is not the agent's"
    [[ $(machines /calico/weir/v1/machines/) == "$(machines /calico/ipam/v2/assignment/)" ]] ||
        fail "the agent and the plugins see different machines"
    nft list table inet weir >/dev/null || fail "there is no NAT"
    quietly podman exec weir-node weirctl node status
    podman exec weir-node weirctl doctor
    # The image's BIRD starts where a session is wanted, and may listen.
    podman exec --interactive weir-node weirctl create -f - <<END
{apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {name: router},
 spec: {peerIP: 172.30.0.1, asNumber: 64512}}
END
    wait_for "BIRD listens" is_listening
}

is_listening() {
    [[ -n $(ss -Hltn 'sport = :179') ]]
}

upgrade() {
    echo "== 6. Upgrade, while web pings api"
    ip netns exec web ping -n -q -i 0.05 "${addresses[api]}" >"$work/ping" &
    local ping=$!
    cp /etc/cni/net.d/10-weir.conflist /etc/weir/network.conflist
    expect "$(run_of_unit ExecStartPre=/usr/bin/podman)" "changed /opt/cni/bin/weir
changed /opt/cni/bin/weir-ipam
unchanged /etc/cni/net.d/10-weir.conflist"
    stop_agent
    attach between
    start_agent_of_unit --gc 1s
    expect "$(podman inspect --format '{{index .Config.Labels "org.opencontainers.image.version"}}' weir-node)" \
        "$version+1"
    attach later
    wait_for "BIRD listens again" is_listening
    kill -INT "$ping"
    wait "$ping" || true
    grep transmitted "$work/ping"
    grep -q ' 0% packet loss' "$work/ping" || fail "pings were lost"
    echo "== 7. A container is lost without a DEL"
    ip netns delete between
    let_addresses_age
    wait_for "its address is given back" says_of "${addresses[between]}" "is not assigned"
    says_of "${addresses[web]}" "is in use" || fail "the address of a living container was given back"
}

remove() {
    echo "== 8. Remove"
    local name
    for name in web api later; do
        cnitool del "$NETWORK" "/run/netns/$name"
        ip netns delete "$name"
    done
    stop_agent
    install_cni "$new" --remove
    expect "$(find /opt/cni/bin /etc/cni/net.d -mindepth 1)" ""
    sh "$REPOSITORY/conf/debian/postrm" remove
    node_state >"$work/after"
    diff "$work/before" "$work/after" || fail "the node is not as before; see above"
    [[ -e /var/lib/weir/nodename && -n $(get /calico/v1/ipam; get /calico/ipam/v2/host) ]] ||
        fail "the node's blocks are gone; nobody asked for that"
}

# Another image, with the programs of another build.
make_newer_image() {
    mkdir "$work/newer"
    local name
    for name in weir weir-ipam; do
        { cat "$programs/$name" && echo newer; } >"$work/newer/$name"
        chmod 0755 "$work/newer/$name"
    done
    cat >"$work/newer/Containerfile" <<END
FROM $old
COPY weir weir-ipam /usr/local/bin/
LABEL org.opencontainers.image.version="$version+1"
END
    quietly podman build --tag "$new" "$work/newer"
}

# All that needs the namespaces of its own.
inside() {
    declare -A addresses=()
    local old=localhost/weir:$version new=localhost/weir:newer
    export CNI_PATH=/opt/cni/bin NETCONFPATH=/etc/cni/net.d
    make_directories_private
    replace_directory /opt cni
    # crun refuses a machine on which both versions of control groups are mounted.
    umount /sys/fs/cgroup/unified 2>/dev/null || true
    make_podman "$work/podman"
    trap 'show_logs $?' EXIT
    make_uplink
    node_state >"$work/before"
    quietly podman load --input "$image"
    make_newer_image
    make_certificates
    start_etcd
    first_start
    two_containers
    upgrade
    remove
    echo "test-image: everything worked"
}

version=$(own_version)
if [[ ${1:-} == --inside ]]; then
    work=$2 programs=$3 image=$4
    inside
    exit
fi
need_root "$@"
need_cargo
install_packages "${NETWORK_PACKAGES[@]}" "${IMAGE_PACKAGES[@]}" etcd-server etcd-client openssl \
    systemd
install_cnitool
programs=$(realpath "${1:-$(programs_of release)}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
check_files
echo "== 2. The image"
"$REPOSITORY/scripts/image.sh" "$version" "$(uname -m)" "$programs" "$work"
unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private \
    "$0" --inside "$work" "$programs" "$work/weir-image-$version-$(uname -m).tar"

#!/bin/sh
# What the packages' scripts and docs/upgrade.md ask of systemctl, where systemd does not run:
# starts a unit's program with its environment file, ends and restarts it. For test-package.sh,
# which puts it into a bare Debian. Logs to /run/UNIT.log.
set -e

# The unit's setting $2.
setting() {
    cat "/etc/systemd/system/$1" "/lib/systemd/system/$1" 2>/dev/null |
        sed -n "s/^$2=-\{0,1\}//p" | head -n 1
}

runs() {
    [ -e "/run/$1.pid" ] && kill -0 "$(cat "/run/$1.pid")" 2>/dev/null
}

start() {
    ! runs "$1" || return 0
    program=$(setting "$1" ExecStart)
    (
        environment=$(setting "$1" EnvironmentFile)
        set -a
        # shellcheck source=/dev/null
        [ ! -e "$environment" ] || . "$environment"
        # shellcheck disable=SC2086 # a command line
        exec setsid $program
    ) >"/run/$1.log" 2>&1 </dev/null &
    echo $! >"/run/$1.pid"
}

# What does not end in 20 s is killed, as systemd would, and is a failure here.
stop() {
    runs "$1" || return 0
    kill "$(cat "/run/$1.pid")"
    tried=0
    while runs "$1"; do
        if [ "$tried" -ge 400 ]; then
            kill -KILL "$(cat "/run/$1.pid")"
            echo "mini-systemctl: $1 did not end in 20 s, and is killed" >&2
            exit 1
        fi
        tried=$((tried + 1))
        sleep 0.05
    done
}

verb=$1
shift
for unit in "$@"; do
    case $unit in
    --now) continue ;;
    *.socket | *.service) ;;
    *) unit=$unit.service ;;
    esac
    case $verb in
    enable | start) start "$unit" ;;
    disable | stop) stop "$unit" ;;
    restart) stop "$unit" && start "$unit" ;;
    try-restart) ! runs "$unit" || { stop "$unit" && start "$unit"; } ;;
    daemon-reload) ;;
    *) echo "mini-systemctl: $verb is not known" >&2 && exit 1 ;;
    esac
done

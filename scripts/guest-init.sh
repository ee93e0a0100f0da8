#!/bin/busybox sh
# shellcheck shell=dash
# The first process under the kernel that scripts/guest-kernel.sh boots; it is
# `/init` of the initramfs there. It shows the machine's files, beneath a layer
# in memory that takes all writes, and runs what the script left in the share.
set -e
/bin/busybox --install -s /bin
mkdir -p /dev /machine /layer /share /root
while read -r module; do
    insmod "/modules/$module"
done </modules/order

mount_from_host() {
    mount -t 9p -o "trans=virtio,version=9p2000.L,msize=512000,$3" "$1" "$2"
}
# Nobody else writes where the guest reads, so that it may keep what it read.
mount_from_host machine /machine ro,cache=loose
mount -t tmpfs -o size=80% layer /layer
mkdir /layer/upper /layer/work
mount -t overlay -o lowerdir=/machine,upperdir=/layer/upper,workdir=/layer/work root /root

mount -t devtmpfs devtmpfs /root/dev
mkdir -p /root/dev/pts /root/dev/shm
mount -t devpts devpts /root/dev/pts
mount -t tmpfs tmpfs /root/dev/shm
mount -t proc proc /root/proc
mount -t sysfs sysfs /root/sys
mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /root/run
mkdir /root/run/guest
mount_from_host share /root/run/guest rw,cache=none
read -r modules </root/run/guest/modules
mkdir -p "/root/usr/lib/modules/$(uname -r)"
mount --bind "/root$modules" "/root/usr/lib/modules/$(uname -r)"
ip link set lo up
hostname guest
exec switch_root /root /bin/bash /run/guest/start

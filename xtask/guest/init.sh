#!/bin/busybox sh
# The guest's first program: inserts the modules, mounts the machine's root below a writable
# overlay, and goes on there with the script that the kernel's command line names.
export PATH=/bin
for tool in mount mkdir insmod cat ip sleep chroot sed; do
    /bin/busybox ln -s busybox /bin/$tool
done
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do
    insmod /modules/$module || echo "init: cannot insert $module"
done

ip link set lo up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2

mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro hostroot /host
mount -t tmpfs over /over
mkdir -p /over/upper /over/work
mount -t overlay -o lowerdir=/host,upperdir=/over/upper,workdir=/over/work root /root
for place in proc sys dev; do
    mount -o bind /$place /root/$place
done
mount -t tmpfs run /root/run
mount -t configfs config /root/sys/kernel/config 2>/dev/null

script=$(sed -n 's/.*braid.script=\([^ ]*\).*/\1/p' /proc/cmdline)
exec chroot /root /bin/bash "$script"

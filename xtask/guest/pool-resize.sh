# A replica grows while it is written: the host sees the new size without a reconnect.
. "$HERE/check.sh"
. "$HERE/pool.sh"
. "$HERE/load.sh"

new plain 16MiB || exit 0
use plain || { bad connect "$(dmesg | tail -n 1)"; exit 0; }
ok connect "$disk"
size() { [[ $(blockdev --getsize64 "$disk") == "$1" ]]; }
same size $((16 << 20)) "$(blockdev --getsize64 "$disk")"
instance=$(cat /sys/class/nvme/"${controller##*/}"/cntlid)
dmesg -C

start_load 8m
goes_on small
for mib in 24 64; do
    managed grow-$mib replica resize plain ${mib}MiB
    if eventually 10 size $((mib << 20)); then
        ok seen-$mib "$(blockdev --getsize64 "$disk")"
    else
        bad seen-$mib "$(blockdev --getsize64 "$disk") bytes"
    fi
    goes_on grown-$mib
done
end_load no-error
fails beyond 'No space|short|Invalid' \
    dd if=/dev/zero of="$disk" bs=4096 seek=$((64 << 8)) count=1 oflag=direct
verify new-space --rw=write --bs=64k --offset=60m --size=4m
check changed-ns-list nvme changed-ns-list-log "$controller"
same same-controller "live $instance" \
    "$(cat /sys/class/nvme/"${controller##*/}"/{state,cntlid} | xargs)"
same no-reconnect '' "$(dmesg | grep -m 1 -i -E 'reconnect|reset')"
leave plain
intact sound

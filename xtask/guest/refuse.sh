# A host that is not on the list, and a subsystem that does not exist, are refused with a status
# that says so; the host on the list is served.
. "$HERE/check.sh"

allowed=nqn.2014-08.org.nvmexpress:uuid:11111111-1111-4111-8111-111111111111
target="-t tcp -a $HOST -s $DISK_PORT"

dmesg -C
fails refused 'failed|could not|error' nvme connect $target -n "$DISK_NQN"
shows refused-status "Connect for subsystem $DISK_NQN is not allowed" "$(dmesg | grep -i connect)"
same refused-nothing '' "$(ls /sys/class/nvme)"

dmesg -C
fails unknown 'failed|could not|error' nvme connect $target -n "$DISK_NQN.not" \
    -q $allowed -I 11111111-1111-4111-8111-111111111111
shows unknown-status 'Connect Invalid Data Parameter' "$(dmesg | grep -i connect)"
same unknown-nothing '' "$(ls /sys/class/nvme)"

check discover nvme discover -t tcp -a "$HOST" -s "$DISK_PORT"
same hidden '' "$(grep "$DISK_NQN" <<<"$seen")"
check allowed nvme connect $target -n "$DISK_NQN" -q $allowed \
    -I 11111111-1111-4111-8111-111111111111
nqn=$DISK_NQN
if find_disk 1; then
    ok allowed-disk "$disk"
    verify allowed-verify --rw=write --bs=4k --size=256k
else
    bad allowed-disk 'no device'
fi
check disconnect disconnect

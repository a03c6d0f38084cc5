# Connects with and without digests, one queue and four, blocks of 4096 and of 512 bytes; every
# combination writes and verifies.
. "$HERE/check.sh"

# try NAME ENGINE BLOCK QUEUES [OPTION...]
try() {
    local name=$1 engine=$2 block=$3 queues=$4
    shift 4
    if ! connect "$engine" -i "$queues" "$@"; then
        bad "$name-connect" "$(dmesg | tail -n 1)"
        return
    fi
    ok "$name-connect" "$disk"
    same "$name-live" live "$(cat /sys/class/nvme/"${controller##*/}"/state)"
    same "$name-block" "$block" "$(blockdev --getss "$disk")"
    same "$name-queues" $((queues + 1)) "$(cat /sys/class/nvme/"${controller##*/}"/queue_count)"
    verify "$name-verify" --rw=randwrite --bs="$block" --size=1M --iodepth=16
    check "$name-disconnect" disconnect
}

try plain disk 4096 1
try header disk 4096 1 --hdr-digest
try data disk 4096 1 --data-digest
try both disk 4096 1 --hdr-digest --data-digest
try queues disk 4096 4
try queues-both disk 4096 4 --hdr-digest --data-digest
try small small 512 1
try small-both small 512 4 --hdr-digest --data-digest
try deep disk 4096 2 -Q 32

# The size that the host sees is the namespace's; a second namespace has blocks of its own.
if connect disk; then
    same size $((64 << 20)) "$(blockdev --getsize64 "$disk")"
    first=$disk
    if find_disk 2; then
        same second-size $((32 << 20)) "$(blockdev --getsize64 "$disk")"
        same second-block 512 "$(blockdev --getss "$disk")"
        verify second-verify --rw=randwrite --bs=512 --size=256k --iodepth=16
    else
        bad second-namespace 'no device'
    fi
    # A reset ends the association and begins another one; the data stay.
    dd if=/dev/urandom of="$first" bs=64k count=4 oflag=direct status=none
    want=$(dd if="$first" bs=64k count=4 iflag=direct status=none | sha256sum)
    check reset nvme reset "$controller"
    eventually 20 grep -q live /sys/class/nvme/"${controller##*/}"/state
    got=$(dd if="$first" bs=64k count=4 iflag=direct status=none | sha256sum)
    same data-after-reset "$want" "$got"
    disconnect
else
    bad again-connect "$(dmesg | tail -n 1)"
fi

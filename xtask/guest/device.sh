# The engine runs in the guest, on block devices of 512 and of 4096 bytes, and the guest's own
# kernel is its host, over IPv4 and IPv6. What is mounted, or holds something, is refused.
. "$HERE/check.sh"

HOST=127.0.0.1 HERE_PORT=4421 HERE_NQN=nqn.2026-11.io.braid:device

# serve OPTION...: starts the engine and waits until it is ready.
serve() {
    echo "+ serve $*"
    "$ENGINE" serve "$@" --nqn $HERE_NQN --listen 127.0.0.1:$HERE_PORT \
        --listen "[::1]:$HERE_PORT" >/run/engine 2>&1 &
    engine=$!
    eventually 20 grep -q '^braid-engine: ready' /run/engine
}

# stop NAME: the engine ends in order.
stop() {
    kill -TERM $engine
    wait $engine
    same "$1" 0 $?
    cat /run/engine
}

# refuses NAME REGEX OPTION...: the engine does not start and says why.
refuses() {
    local name=$1 regex=$2
    shift 2
    fails "$name" "$regex" timeout 20 "$ENGINE" serve "$@" --listen 127.0.0.1:$HERE_PORT
}

# One device after the other: its size and block size are the namespace's.
for device in /dev/vda /dev/vdb; do
    name=${device##*/}
    if ! serve $device; then
        bad "$name-ready" "$(tail -n 1 /run/engine)"
        continue
    fi
    ok "$name-ready"
    if connect here -i 2; then
        same "$name-size" "$(blockdev --getsize64 $device)" "$(blockdev --getsize64 "$disk")"
        same "$name-block" "$(blockdev --getss $device)" "$(blockdev --getss "$disk")"
        verify "$name-verify" --rw=randwrite --bssplit=4k/60:16k/30:128k/10 --size=8M --iodepth=8
        check "$name-discard" blkdiscard -o 0 -l 4M "$disk"
        same "$name-discarded" 0 "$(dd if=$disk bs=1M count=4 iflag=direct status=none |
            tr -d '\0' | wc -c)"
        check "$name-flush" nvme flush "$controller" -n 1
        check "$name-disconnect" disconnect
    else
        bad "$name-connect" "$(dmesg | tail -n 1)"
    fi
    stop "$name-stop"
done

# IPv6, to the same engine as IPv4 at the same time.
serve mem:64MiB || bad mem-ready "$(tail -n 1 /run/engine)"
HOST=::1
if connect here; then
    shows ipv6-path 'traddr=::1' "$(nvme list-subsys)"
    verify ipv6-verify --rw=randwrite --bs=4k --size=1M --iodepth=8
    check ipv4-discover nvme discover -t tcp -a 127.0.0.1 -s $HERE_PORT
    check ipv6-discover nvme discover -t tcp -a ::1 -s $HERE_PORT
    shows ipv6-family '^adrfam: +ipv6' "$seen"
    check ipv6-disconnect disconnect
else
    bad ipv6-connect "$(dmesg | tail -n 1)"
fi
refuses taken-port 'in use|taken' mem:64MiB
stop ipv6-stop

# What holds something is not taken without force, and what is mounted is in use.
mkfs.ext4 -q -F /dev/vda
refuses foreign 'add --force' /dev/vda
mkdir -p /run/mount
mount /dev/vda /run/mount
refuses mounted 'mounted|in use' /dev/vda
umount /run/mount
if serve /dev/vda --force; then ok forced; else bad forced "$(tail -n 1 /run/engine)"; fi
stop forced-stop
refuses wrong-block '4096' /dev/vdb --block-size 512
refuses missing '/dev/vdz' /dev/vdz

# Our own host against the kernel's target: verified I/O, digests, access that changes. The same
# program, against itself, would not notice what both its sides get wrong.
. "$HERE/check.sh"
. "$HERE/nvmet.sh"

name=nqn.2026-11.io.braid:peer
truncate -s 64M /run/peer.img
nvmet_serve $name 4420 /run/peer.img
uri="nvme+tcp://127.0.0.1:4420/$name?nsid=1"

check discover "$ENGINE" discover 127.0.0.1:4420
shows discovered "$name" "$seen"
check identify "$ENGINE" identify "$uri"
shows model Linux "$seen"
serial=$(cat /sys/kernel/config/nvmet/subsystems/$name/attr_serial)
shows serial "$serial" "$seen"

# load NAME OPTION...: writes, reads and verifies for a while.
load() {
    local name=$1
    shift
    check "$name" "$ENGINE" perf "$uri" --rw mixed --time 2s --verify --fsync-every 64 "$@"
    shows "$name-checked" '[1-9][0-9]* blocks checked' "$seen"
}
load small --block-size 4KiB --queue-depth 16
load queues --block-size 4KiB --queue-depth 8 --queues 3
load header-digest --block-size 4KiB --queue-depth 8 --header-digest
load data-digest --block-size 16KiB --queue-depth 8 --data-digest
load both-digests --block-size 64KiB --queue-depth 4 --header-digest --data-digest
load large --block-size 128KiB --queue-depth 4 --connections 2

# The target goes away and comes back: our host waits and loses nothing.
"$ENGINE" perf "$uri" --rw mixed --time 8s --verify --queue-depth 8 >/run/perf 2>&1 &
perf=$!
sleep 2
rm /sys/kernel/config/nvmet/ports/4420/subsystems/$name
sleep 1
ln -s /sys/kernel/config/nvmet/subsystems/$name /sys/kernel/config/nvmet/ports/4420/subsystems/
wait $perf
same away-and-back 0 $?
cat /run/perf
shows away-and-back-checked '[1-9][0-9]* blocks checked' "$(cat /run/perf)"

# Two ports, whose access changes: our host takes the one that it may, by turns the one and the
# other, and waits while it may take neither.
nvmet_listen $name 4421
nvmet_access 4420 inaccessible
"$ENGINE" perf "$uri" --path 127.0.0.1:4421 --rw mixed --time 9s --verify --queue-depth 8 \
    --queues 2 --header-digest --data-digest -o json >/run/perf 2>/run/perf.err &
perf=$!
sleep 2
nvmet_access 4420 optimized
nvmet_access 4421 inaccessible
sleep 2
nvmet_access 4420 inaccessible
sleep 1.5
nvmet_access 4421 non-optimized
wait $perf
same access 0 $?
cat /run/perf /run/perf.err
shows access-checked '"verified_blocks": *[1-9]' "$(cat /run/perf)"
shows access-mismatches '"mismatches": *0' "$(cat /run/perf)"
longest=$(grep -o '"max": *[0-9]*' /run/perf | grep -o '[0-9]*' | sort -n | tail -n 1)
holds access-waited "${longest:-0} > 1000000"
nvmet_leave $name 4421
nvmet_access 4420 optimized

fails not-there 'refused: .*invalid' "$ENGINE" identify "nvme+tcp://127.0.0.1:4420/$name.not"
nvmet_end $name 4420
rm /run/peer.img

# Our own host against the kernel's target: verified I/O, with and without digests.
. "$HERE/check.sh"
. "$HERE/nvmet.sh"

name=nqn.2026-11.io.braid:peer
truncate -s 64M /run/peer.img
nvmet_serve $name 4420 /run/peer.img
check discover "$ENGINE" discover 127.0.0.1:4420
shows discovered "$name" "$seen"
check identify "$ENGINE" identify "nvme+tcp://127.0.0.1:4420/$name?nsid=1"
shows model Linux "$seen"
for digests in '' '&hdgst=1&ddgst=1'; do
    uri="nvme+tcp://127.0.0.1:4420/$name?nsid=1$digests"
    check verify${digests:+-digests} "$ENGINE" perf "$uri" --rw mixed --block-size 4KiB \
        --queue-depth 16 --queues 2 --time 3s --verify
done
check large "$ENGINE" perf "nvme+tcp://127.0.0.1:4420/$name?nsid=1" --rw mixed \
    --block-size 128KiB --queue-depth 4 --time 3s --verify
nvmet_end $name 4420
rm /run/peer.img

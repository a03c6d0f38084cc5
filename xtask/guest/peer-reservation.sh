# Hosts of ours and the kernel's host reserve a namespace of the kernel's own target; what ours and
# nvme-cli read in a report is the same.
. "$HERE/check.sh"
. "$HERE/nvmet.sh"

nqn=nqn.2026-11.io.braid:reserved
truncate -s 16M /run/peer.img
nvmet_serve $nqn 4420 /run/peer.img reservations
uri="nvme+tcp://127.0.0.1:4420/$nqn?nsid=1"
conflict='[Rr]eservation [Cc]onflict'

check connect nvme connect -t tcp -a 127.0.0.1 -s 4420 -n $nqn -i 2
find_disk 1 && ok disk "$disk" || { bad disk "$(dmesg | tail -n 1)"; exit 0; }
shows rescap '^rescap *: *(0x[1-9a-f]|[1-9])' "$(nvme id-ns "$disk")"

# Words of a host of ours, by its name: what it asks about reservations, a block that it writes,
# one that it reads.
asks() { echo "$ENGINE" reservation "$2" "$uri" "${@:3}" --host-nqn "nqn.2026-11.io.braid:$1"; }
moves() {
    echo "$ENGINE" perf "$uri" --rw "$2" --sequential --total 4KiB --block-size 4KiB \
        --queue-depth 1 --host-nqn "nqn.2026-11.io.braid:$1"
}

# What a report says, from each side: type, generation, how many, then for each its host, key and
# whether it holds the namespace.
types='write-exclusive exclusive-access write-exclusive-registrants exclusive-access-registrants
    write-exclusive-all exclusive-access-all'
seen_by_us() {
    local report number=0 type=0 name
    report=$($(asks watcher report))
    for name in $types; do
        ((number += 1))
        if grep -q "^type  *$name\$" <<<"$report"; then type=$number; fi
    done
    echo "$type $(sed -n 's/^generation  *//p' <<<"$report")" \
        "$(awk '/^HOST/ {begun = 1; next} begun && NF' <<<"$report" | wc -l)"
    awk '/^HOST/ {begun = 1; next} begun && NF {gsub("-", "", $1); print $1, $2, $3 == "yes"}' \
        <<<"$report" | sort
}
seen_by_nvme_cli() {
    local report
    report=$(nvme resv-report "$disk" --eds 2>&1)
    echo "$(field rtype "$report") $(field gen "$report") $(field regctl "$report")"
    awk '$1 == "rcsts" {holds = $3} $1 == "rkey" {key = $3}
        $1 == "hostid" {print $3, "0x" key, holds}' <<<"$report" | sort
}
# views NAME TYPE REGISTRANTS: both sides see this.
views() {
    local ours
    ours=$(seen_by_us)
    echo "$ours"
    shows "$1" "^$2 [0-9]+ $3\$" "$ours"
    same "$1-both" "$(seen_by_nvme_cli)" "$ours"
}

views fresh 0 0
check register-a $(asks a register 0xa)
check register-b $(asks b register 0xb)
views registered 0 2
fails register-other-key "$conflict" $(asks a register 0xc)
fails wrong-key "$conflict" $(asks a acquire 0xf write-exclusive)

# The holder writes, others only read, whosever host they are.
check acquire $(asks a acquire 0xa write-exclusive)
views acquired 1 2
check write-holder $(moves a write)
fails write-b "$conflict" $(moves b write)
fails write-kernel "$conflict" nvme write "$disk" -s 0 -c 0 -z 4096 -d /dev/zero
check read-b $(moves b read)
fails acquire-b "$conflict" $(asks b acquire 0xb write-exclusive)
# Who holds nothing gives nothing up, and that is no error.
check release-b $(asks b release 0xb exclusive-access)
check replace $(asks a register 0xaa --replace 0xa)
views replaced 1 2

# Another takes it, while the holder writes as fast as it can: those writes end.
"$ENGINE" perf "$uri" --rw write --block-size 4KiB --queue-depth 8 --time 20s \
    --host-nqn nqn.2026-11.io.braid:a >/run/perf 2>&1 &
perf=$!
sleep 2
check preempt $(asks b preempt 0xb 0xaa exclusive-access --abort)
views preempted 2 1
wait $perf
holds preempted-writes "$? != 0"
shows preempted-refused 'onflict|reempt' "$(cat /run/perf)"
fails read-preempted "$conflict" $(moves a read)
fails read-kernel "$conflict" nvme read "$disk" -s 0 -c 0 -z 4096 -d /run/got
check write-taken $(moves b write)

# The kernel's host takes it from ours, and gives it up.
check register-kernel nvme resv-register "$disk" --nrkey=0xc --rrega=0
check preempt-kernel nvme resv-acquire "$disk" --crkey=0xc --prkey=0xb --rtype=1 --racqa=1
views taken-back 1 1
fails write-taken-back "$conflict" $(moves b write)
check read-taken-back $(moves b read)
check release-kernel nvme resv-release "$disk" --crkey=0xc --rtype=1 --rrela=0
views released 0 1
check write-released $(moves b write)

# A reservation of all registrants, left one by one; what is cleared is cleared.
check register-a-again $(asks a register 0xa)
check acquire-all $(asks a acquire 0xa exclusive-access-all)
views all 6 2
check write-all nvme write "$disk" -s 0 -c 0 -z 4096 -d /dev/zero
fails read-stranger "$conflict" $(moves b read)
check unregister $(asks a unregister 0xa)
views left 6 1
fails unregister-again "$conflict" $(asks a unregister 0xa)
check register-last $(asks b register 0xb)
check clear $(asks b clear 0xb)
views cleared 0 0
check write-cleared $(moves a write)

check disconnect disconnect
nvmet_end $nqn 4420
rm /run/peer.img

# A volume under fio: the engine that serves it is killed, stopped and cut off, one after the
# other. The host sees no error, and each time both paths again.
. "$HERE/volume.sh"

volume data 32MiB || exit 0
follow
find_disk 1 && ok disk "$disk" || { bad disk "$(cat /run/events)"; exit 0; }
known paths 20

# hit NAME FAULT CURE: the engine that serves gets the fault, another one serves, and then the cure.
hit() {
    local name=$1 fault=$2 cure=$3 lost=$active
    done_by "$name-$fault" "$fault" "$lost"
    moved "$name-taken-over" "$lost"
    goes_on "$name"
    shows "$name-list-subsys" "tcp traddr=$(at "$active"),trsvcid=4420.* live" "$(nvme list-subsys)"
    done_by "$name-$cure" "$cure" "$lost"
    redundant "$name"
    goes_on "$name-then"
}

start_load 24m
goes_on first
hit killed kill start
hit stopped pause resume
hit cut-off cut mend
end_load no-error
verify then --rw=write --bs=64k --size=4M --offset=1m
leave_volume

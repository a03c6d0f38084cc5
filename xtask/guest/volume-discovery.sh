# What the discovery services of three engines tell a host: what there is, and what becomes
# another. The host follows by itself, as one with udev does.
. "$HERE/volume.sh"

volume data 32MiB || exit 0

# All that there is, by one command to one engine: the one that serves, and the one that stands by.
for engine in "$standbys" "$active"; do
    check "connect-all-$engine" nvme connect-all -t tcp -a "$(at "$engine")" -s 4420 \
        --keep-alive-tmo=2
    find_disk 1 && ok "disk-$engine" "$disk" || { bad disk "$(nvme list-subsys)"; exit 0; }
    known "both-paths-of-$engine" 10
    [[ $engine == "$active" ]] && break
    check "disconnect-$engine" nvme disconnect-all
    eventually 10 [ ! -b "$disk" ]
done
wanted="$(at "$active") optimized $(at "$standbys") inaccessible"
same both-paths "$wanted" "$(ways | sort -k 2 -r | xargs)"
check list-subsys nvme list-subsys
shows list-subsys-active "tcp traddr=$(at "$active"),trsvcid=4420.* live" "$seen"
shows list-subsys-standby "tcp traddr=$(at "$standbys"),trsvcid=4420.* live" "$seen"
verify by-connect-all --rw=randwrite --bs=4k --size=1M --iodepth=8
check disconnect nvme disconnect-all
eventually 10 [ ! -b "$disk" ]

# Persistent discovery controllers: what is there is found when they are connected.
follow
find_disk 1 && ok followed "$disk" || { bad followed "$(cat /run/events)"; exit 0; }
known followed-paths 20
data=$nqn

# What is made later is found by an event, and so is a replica of an engine alone.
volume more 16MiB || exit 0
find_disk 1 && ok more "$disk" || bad more "$(cat /run/events)"
shows more-event "aen '0x70f002'" "$(cat /run/events)"
verify more-verify --rw=randwrite --bs=4k --size=1M --iodepth=8
if ask manage engine1 replica create alone --size 16MiB; then
    nqn=$(value nqn)
    find_disk 1 && ok alone "$disk" || bad alone "$(cat /run/events)"
    ask manage engine1 replica resize alone 24MiB
    grown() { [[ $(blockdev --getsize64 "$disk") == $((24 << 20)) ]]; }
    eventually 10 grown && ok alone-grown || bad alone-grown "$(blockdev --getsize64 "$disk")"
else
    bad alone "$answer"
fi

# The engine that stands by is lost, and another one gets the path: the host learns of it.
nqn=$data
find_disk 1
lost=${standbys%% *}
done_by kill-standby kill "$lost"
other_standby() { show data && [[ $standbys == engine* && $standbys != *$lost* ]]; }
if eventually 60 other_standby; then
    ok standby "$standbys instead of $lost"
else
    bad standby "$answer"
fi
known new-path 30
done_by start-again start "$lost"

# A hand-over: the same paths, the other way round.
eventually 60 whole data
before=$active
control volume hand-over data || bad hand-over "$answer"
moved handed-over "$before"
redundant handed-over
verify handed-over-verify --rw=randwrite --bs=4k --size=1M --iodepth=8
leave_volume

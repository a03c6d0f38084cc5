# I/O in the background that is verified, and what the kernel knows of the paths below it.

# start_load SIZE [OPTION...]: fio writes and verifies $disk until it is told to end.
start_load() {
    local size=$1
    shift
    fio --name=load --filename="$disk" --rw=randwrite --bssplit=4k/70:16k/20:64k/10 --iodepth=8 \
        --ioengine=libaio --direct=1 --size="$size" --offset=1m --time_based --runtime=600 \
        --verify=crc32c --verify_fatal=1 --verify_backlog=128 --output=/run/fio.log "$@" &
    load=$!
}

# end_load NAME: fio ends, and saw neither an error nor anything wrong. Prints what took longest.
end_load() {
    local status
    kill -INT "$load" 2>/dev/null
    wait "$load"
    status=$?
    cat /run/fio.log
    # It says so when it is told to end before its time.
    holds "$1-fio" "$status == 0 || $status == 128"
    shows "$1" 'err= 0' "$(cat /run/fio.log)"
    ok "$1-longest" "$(grep -m 1 ' lat (.*max=' /run/fio.log | tr -s ' ')"
}

# served: how many commands the kernel's block device has done.
served() { awk '{print $1 + $5}' "/sys/block/${disk##*/}/stat"; }
more_than() { (($(served) > $1)); }

# goes_on NAME: commands are done, from now on.
goes_on() {
    local before began=${EPOCHREALTIME/./}
    before=$(served)
    if eventually 120 more_than $((before + 20)); then
        ok "$1-goes-on" "after $(((${EPOCHREALTIME/./} - began) / 1000)) ms"
    else
        bad "$1-goes-on" "$(paths | xargs): $(dmesg | tail -n 1)"
        dmesg | tail -n 40
    fi
}

# rests NAME: no command is done, and none failed.
rests() {
    local before
    sleep 1
    before=$(served)
    sleep 1.5
    same "$1-rests" "$before" "$(served)"
    kill -0 "$load" 2>/dev/null && ok "$1-waits" || bad "$1-waits" "$(tail -n 3 /run/fio.log)"
}

# paths: each controller of $nqn and how the kernel may take it, one a line.
paths() {
    local subsystem place path
    for subsystem in /sys/class/nvme-subsystem/*; do
        [[ $(cat "$subsystem/subsysnqn" 2>/dev/null) == "$nqn" ]] || continue
        for place in "$subsystem"/nvme*; do
            [[ -e $place/cntlid ]] || continue
            for path in "$place"/nvme*c*n*; do
                if [[ -e $path/ana_state ]]; then echo "${place##*/} $(cat "$path/ana_state")"; fi
            done
        done
    done
}

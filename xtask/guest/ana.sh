# Asymmetric access: two paths to one namespace. The kernel takes the one that it may, waits
# without an error while it may take neither, and goes on when it may again. Compare and verify
# beside it.
. "$HERE/check.sh"
. "$HERE/load.sh"

connect disk -i 2 || { bad connect "$(dmesg | tail -n 1)"; exit 0; }
ok connect "$disk"
first=${controller##*/}

check id-ctrl nvme id-ctrl "$controller"
same id-ctrl-ana 8 "$(($(field cmic "$seen") & 8))"
holds id-ctrl-anatt "$(field anatt "$seen") == 10"
check ana-log nvme ana-log "$controller"
shows ana-log-state 'state[[:space:]]*:[[:space:]]*optimized' "$seen"

dd if=/dev/urandom of=/run/pattern bs=4096 count=1 status=none
check write nvme write "$disk" -s 8 -c 0 -z 4096 -d /run/pattern
check compare nvme compare "$disk" -s 8 -c 0 -z 4096 -d /run/pattern
fails compare-other 'Compare Failure|COMPARE_FAILED' \
    nvme compare "$disk" -s 9 -c 0 -z 4096 -d /run/pattern
check verify nvme verify "$disk" -s 0 -c 255

check second-path nvme connect -t tcp -a "$HOST" -s "$DISK_OTHER" -n "$nqn" -c 1 -i 2
two() { (($(paths | wc -l) == 2)); }
eventually 10 two
second=$(paths | grep -v "^$first ")
second=${second%% *}
check list-subsys nvme list-subsys
for path in "$first" "$second"; do
    shows "list-subsys-$path" "$path tcp .* live" "$seen"
done

# access STATE [PORT]: has the engine change it, for one of its addresses or for both.
access() {
    ask manage disk ana set "$nqn" "$1" ${2:+--listen "127.0.0.1:$2"} || bad "ana-set-$1" "$answer"
}
# becomes NAME FIRST SECOND: the kernel knows how both paths are to be taken.
becomes() {
    if eventually 10 are "$first $2" "$second $3"; then
        ok "$1" "$2, $3"
    else
        bad "$1" "$(paths)"
    fi
}
are() { [[ $(paths | sort) == "$(printf '%s\n' "$@" | sort)" ]]; }

start_load 16m
goes_on both
access inaccessible "$DISK_PORT"
becomes by-second inaccessible optimized
goes_on by-second
access non-optimized "$DISK_PORT"
access inaccessible "$DISK_OTHER"
becomes by-first non-optimized inaccessible
goes_on by-first
check ana-log-then nvme ana-log "/dev/$second"
shows ana-log-then-state 'state[[:space:]]*:[[:space:]]*inaccessible' "$seen"
access inaccessible
becomes by-none inaccessible inaccessible
rests by-none
access optimized "$DISK_OTHER"
becomes by-second-again inaccessible optimized
goes_on by-second-again
access optimized
becomes by-both optimized optimized
end_load no-error
same still-live 'live live' "$(cat /sys/class/nvme/{"$first","$second"}/state | xargs)"
check disconnect disconnect

# A volume under fio that people change: a snapshot, two more sizes, a replica that is made anew,
# and a hand-over at the end. The host sees each size on both paths, without a reconnect.
. "$HERE/volume.sh"

volume data 32MiB || exit 0
follow
find_disk 1 && ok disk "$disk" || { bad disk "$(cat /run/events)"; exit 0; }
known paths 20
size() { [[ $(blockdev --getsize64 "$disk") == "$1" ]]; }
same size $((32 << 20)) "$(blockdev --getsize64 "$disk")"

# each_path BLOCKS: every controller says that its namespace has so many.
each_path() {
    local path state
    sizes=$(paths | while read -r path state; do
        nvme id-ns "/dev/$path" -n 1 2>&1 | grep -m 1 -i -E 'nsze|error|status|invalid'
    done)
    [[ $(grep -c "nsze *: $(printf '0x%x' "$1")\$" <<<"$sizes") == 2 ]]
}
controllers() { paths | awk '{print $1}' | sort | xargs; }
before=$(controllers)
dmesg -C

start_load 24m
goes_on first
done_by snapshot control volume snapshot create data first
shows snapshot-ready '"state": "ready"' "$answer"
goes_on snapshotted
for mib in 48 80; do
    done_by grow-$mib control volume resize data ${mib}MiB
    if eventually 10 size $((mib << 20)); then
        ok seen-$mib "$(blockdev --getsize64 "$disk")"
    else
        bad seen-$mib "$(blockdev --getsize64 "$disk") bytes"
    fi
    if eventually 10 each_path $((mib << 8)); then ok paths-$mib; else bad paths-$mib "$sizes"; fi
    goes_on grown-$mib
done

for other in $engines; do [[ $other != "$active" ]] && break; done
done_by removed control volume remove-member data "$other" --yes
goes_on removed
again() { control volume add-member data "$other"; }
eventually 60 again && ok added || bad added "$answer"
redundant added
goes_on added
done_by listed control volume snapshot list data
shows all-hold-it '"holders": 3' "$answer"

lost=$active
done_by hand-over control volume hand-over data
moved handed-over "$lost"
goes_on handed-over
sleep 1
same size-stays $((80 << 20)) "$(blockdev --getsize64 "$disk")"
same no-reconnect "$before" "$(controllers)"
end_load no-error
verify new-space --rw=write --bs=64k --offset=76m --size=4m
fails beyond 'No space|short|Invalid' \
    dd if=/dev/zero of="$disk" bs=4096 seek=$((80 << 8)) count=1 oflag=direct
done_by dropped control volume snapshot destroy data first --yes
leave_volume

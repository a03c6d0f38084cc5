# Kills the engine ten times under records that are written with and without flushes, and cleared
# by unmap and by write-zeroes: the pool is opened again and nothing that was acknowledged is lost.
. "$HERE/check.sh"
. "$HERE/pool.sh"
. "$HERE/records.sh"

new vm 192MiB || exit 0
use vm -i 4 || { bad connect "$(dmesg | tail -n 1)"; exit 0; }
ok connect "$disk"
write_records 150 --clear
goes_on writing
rounds=0
while ((rounds < 10)) && kill -0 $writer; do
    rounds=$((rounds + 1))
    # Not always after the same time.
    sleep 0.$((rounds * 7 % 10))
    ask kill disk || bad kill-$rounds "$answer"
    ask start disk || bad restart-$rounds "$answer"
    goes_on after-$rounds
done
same kills 10 $rounds
end_records
all_there first
sound no-error

# A new association and a last kill: the same is there.
use vm
check disconnect disconnect
ask kill disk
ask start disk
use vm || { bad connect-again "$(dmesg | tail -n 1)"; exit 0; }
check again-records "$XTASK" record check --device "$disk" --journal $journal
holds cleared "$(sort -u $journal | grep -c ' 0$') > 100"
same no-io-error '' "$(dmesg | grep -m 1 'I/O error')"
check last-disconnect disconnect
intact verified

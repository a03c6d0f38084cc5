# Kills the engine under I/O three times; the kernel reconnects and nothing promised is lost.
. "$HERE/check.sh"
. "$HERE/records.sh"

connect disk -i 4 --ctrl-loss-tmo=120 || { bad connect "$(dmesg | tail -n 1)"; exit 0; }
ok connect "$disk"
write_records 30 $volatile
goes_on writing
for round in 1 2 3; do
    sleep 2
    if ask kill disk; then ok kill-$round; else bad kill-$round "$answer"; fi
    sleep 1.5
    same away-$round connecting "$(cat /sys/class/nvme/"${controller##*/}"/state)"
    if ask start disk; then ok restart-$round "$answer"; else bad restart-$round "$answer"; fi
    goes_on after-$round
    same live-$round live "$(cat /sys/class/nvme/"${controller##*/}"/state)"
done
all_there first

# A new association reads the same, and the engine may be killed in between once more.
check disconnect disconnect
ask kill disk
ask start disk
connect disk || { bad connect-again "$(dmesg | tail -n 1)"; exit 0; }
check again-records "$XTASK" record check --device "$disk" --journal $journal
same no-io-error '' "$(dmesg | grep -m 1 'I/O error')"
check last-disconnect disconnect

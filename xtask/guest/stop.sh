# Stops the engine in order under I/O and starts it again: it ends in time, the host sees an
# orderly close, waits, and loses nothing.
. "$HERE/check.sh"
. "$HERE/records.sh"

connect disk -i 2 --ctrl-loss-tmo=120 || { bad connect "$(dmesg | tail -n 1)"; exit 0; }
ok connect "$disk"
write_records 14
goes_on writing
sleep 1
dmesg -C
if ask stop disk; then ok stop "$answer"; else bad stop "$answer"; fi
sleep 2
same away connecting "$(cat /sys/class/nvme/"${controller##*/}"/state)"
# A close is no time-out, no reset and no broken PDU.
same orderly '' "$(dmesg | grep -m 1 -i -E 'timeout|digest|reset by peer|unexpected|protocol|-104')"
if ask start disk; then ok start "$answer"; else bad start "$answer"; fi
goes_on after
all_there stop
same no-io-error '' "$(dmesg | grep -m 1 'I/O error')"

# An idle host, and no host at all.
if ask stop disk; then ok stop-idle "$answer"; else bad stop-idle "$answer"; fi
ask start disk
eventually 20 grep -q live /sys/class/nvme/"${controller##*/}"/state
same live-again live "$(cat /sys/class/nvme/"${controller##*/}"/state)"
check disconnect disconnect
if ask stop disk; then ok stop-alone "$answer"; else bad stop-alone "$answer"; fi

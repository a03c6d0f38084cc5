# Two hosts register, reserve, preempt and release a namespace on a file; who may do what outlives
# the engine.
. "$HERE/check.sh"

connect disk -i 2 --ctrl-loss-tmo=120 || { bad connect "$(dmesg | tail -n 1)"; exit 0; }
ok connect "$disk"
. "$HERE/reservations.sh"
check disconnect disconnect

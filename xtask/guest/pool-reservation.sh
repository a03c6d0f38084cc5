# The same on a replica, whose pool keeps what the hosts agreed on.
. "$HERE/check.sh"
. "$HERE/pool.sh"

new vm 64MiB || exit 0
use vm || { bad connect "$(dmesg | tail -n 1)"; exit 0; }
ok connect "$disk"
. "$HERE/reservations.sh"
sound no-error
check disconnect disconnect
intact verified

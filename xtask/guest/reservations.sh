# What two hosts do with the reservations of one namespace: this one, and the second guest, for one
# kernel alone joins what it connects to, whoever it says it is. $disk is the namespace here, $nqn
# its subsystem.

# there NAME COMMAND...: the other host does it; its output is in $seen.
there() {
    local name=$1
    shift
    if ask second "$@"; then ok "$name"; else bad "$name" "$answer"; fi
    seen=${answer#?? }
}

# there_fails NAME REGEX COMMAND...: the other host cannot do it, and hears why.
there_fails() {
    local name=$1 regex=$2
    shift 2
    if ask second "$@"; then bad "$name" "$answer"; else shows "$name" "$regex" "$answer"; fi
}

# state: generation, type, registrants and whether it persists, as this host reads them.
state() {
    local report
    report=$(nvme resv-report "$disk" --eds 2>&1)
    echo "$(field gen "$report") $(field rtype "$report") $(field regctl "$report")" \
        "$(field ptpls "$report")"
}

# back NAME: both hosts are connected again.
back() {
    local state=/sys/class/nvme/${controller##*/}/state
    eventually 60 grep -q live "$state" && ok "$1-here" || bad "$1-here" "$(cat "$state")"
    there "$1-there" timeout 50 sh -c "'until grep -q live /sys/class/nvme/nvme*/state; do sleep 0.1; done'"
}

# again NAME: the engine is killed and started.
again() {
    ask kill disk && ok "$1-kill" || bad "$1-kill" "$answer"
    # So long until the hosts have noticed.
    sleep 1.5
    ask start disk && ok "$1-start" "$answer" || bad "$1-start" "$answer"
    back "$1"
}

# Words for nvme-cli: commands of a host with a key, on its device.
register() { echo nvme resv-register "$1" --nrkey="$2" --rrega=0 --cptpl=3; }
acquire() { echo nvme resv-acquire "$1" --crkey="$2" --rtype="$3" --racqa=0; }
preempt() { echo nvme resv-acquire "$1" --crkey="$2" --prkey="$3" --rtype="$4" --racqa="${5:-1}"; }
release() { echo nvme resv-release "$1" --crkey="$2" --rtype="$3" --rrela=0; }
clear() { echo nvme resv-release "$1" --crkey="$2" --rrela=1; }
put() { echo nvme write "$1" -s 0 -c 0 -z 4096 -d /dev/zero; }
get() { echo nvme read "$1" -s 0 -c 0 -z 4096 -d /run/got; }
conflict='[Rr]eservation [Cc]onflict'

there connect nvme connect -t tcp -a "$HOST" -s "$DISK_PORT" -n "$nqn" -c 1 --ctrl-loss-tmo=120
there disk timeout 20 sh -c "'until ls -d /dev/nvme*n1; do sleep 0.1; done'"
other=$(tr ' ' '\n' <<<"$seen" | grep -m 1 '^/dev/nvme[0-9]*n1$')
# Without another host there is nothing to see.
[[ -n $other ]] || exit 0

shows rescap '^rescap *: *(0xff|255)' "$(nvme id-ns "$disk")"
check register $(register "$disk" 0xa)
there register-there $(register "$other" 0xb)
same registered '2 0 2 1' "$(state)"
fails register-other-key "$conflict" $(register "$disk" 0xc)

# The holder writes, the other only reads: by its own command and through the block layer.
check acquire $(acquire "$disk" 0xa 1)
same acquired '2 1 2 1' "$(state)"
check put $(put "$disk")
there_fails put-there "$conflict" $(put "$other")
there_fails dd-there 'exchange|error' dd if=/dev/zero of="$other" bs=4096 count=1 conv=sync oflag=direct
there get-there $(get "$other")
there_fails acquire-there "$conflict" $(acquire "$other" 0xb 1)

# The other takes it away, and for itself alone.
there preempt-there $(preempt "$other" 0xb 0xa 2)
same preempted '3 2 1 1' "$(state)"
fails get-refused "$conflict" $(get "$disk")
fails put-refused "$conflict" $(put "$disk")
there put-taken $(put "$other")
fails release-refused "$conflict" $(release "$disk" 0xa 2)

# It takes it back, while the other writes as fast as it can.
check register-again $(register "$disk" 0xa)
there writing sh -c "'(while nvme write $other -s 8 -c 0 -z 4096 -d /dev/zero; do :; done) >/run/writes 2>&1 &'"
check preempt-and-abort $(preempt "$disk" 0xa 0xb 1 2)
same aborted '5 1 1 1' "$(state)"
there_fails put-aborted "$conflict" $(put "$other")
there writing-ended timeout 20 sh -c "'until grep -iE \"reservation.conflict|preempt\" /run/writes; do sleep 0.1; done'"
shows writing-refused 'onflict|reempt' "$seen"

# All of that outlives the engine.
before=$(nvme resv-report "$disk" --eds | grep -vE 'cntlid')
again crash
same kept "$before" "$(nvme resv-report "$disk" --eds | grep -vE 'cntlid')"
check put-after-crash $(put "$disk")
there_fails put-there-after-crash "$conflict" $(put "$other")
there get-there-after-crash $(get "$other")

# What is given up is free for both, and cleared is cleared, after another crash, too.
there register-after-crash $(register "$other" 0xb)
check release $(release "$disk" 0xa 1)
there put-released $(put "$other")
check acquire-shared $(acquire "$disk" 0xa 3)
there put-shared $(put "$other")
there clear-there $(clear "$other" 0xb)
same cleared '7 0 0 1' "$(state)"
again second-crash
same still-cleared '7 0 0 1' "$(state)"
check put-cleared $(put "$disk")
there put-cleared-there $(put "$other")
there disconnect-there nvme disconnect-all
same no-kernel-error '' "$(dmesg | grep -m 1 'I/O error')"

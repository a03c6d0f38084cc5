# Replicas of a pool: made by the engine's own commands on the machine, connected to by name.

# manage WORD...: a management command; its answer is in $answer, as JSON on one line.
manage() { ask manage disk "$@"; }

# managed NAME WORD...: the command is done.
managed() {
    local name=$1
    shift
    if manage "$@"; then ok "$name"; else bad "$name" "$answer"; fi
}

# refused NAME REGEX WORD...: the command is not done, and the answer says why.
refused() {
    local name=$1 regex=$2
    shift 2
    if manage "$@"; then bad "$name" "$answer"; else shows "$name" "$regex" "$answer"; fi
}

# value NAME: the first value of that name in $answer.
value() { grep -o "\"$1\": [^,} ]*" <<<"$answer" | head -n 1 | sed 's/^[^:]*: //; s/"//g'; }

# figures: what the pool says of its space, in bytes.
figures() {
    manage pool list || return 1
    data=$(value data_bytes) available=$(value available_bytes)
    quarantine=$(value quarantine_bytes) capacity=$(value capacity_bytes)
    echo "data $data, available $available, quarantine $quarantine, capacity $capacity"
}

# sound NAME: the pool found nothing wrong in itself so far.
sound() {
    manage pool list || bad "$1" "$answer"
    same "$1" 'open 0 0' "$(value state) $(value checksum_errors) $(value unverified_blocks)"
}

# intact NAME: the engine stops in order, and what it leaves is right in every rule.
intact() {
    if ask stop disk; then ok "$1-stop" "$answer"; else bad "$1-stop" "$answer"; fi
    if ask verify disk; then same "$1" 0 "$(value errors)"; else bad "$1" "$answer"; fi
}

# new REPLICA SIZE [OPTION...]: makes a replica.
declare -A names
new() {
    local replica=$1
    shift
    manage replica create "$replica" --size "$@" || { bad "new-$replica" "$answer"; return 1; }
    names[$replica]=$(value nqn)
}

# cloned SNAPSHOT CLONE: makes a replica of a snapshot.
cloned() {
    manage snapshot clone "$1" "$2" || { bad "clone-$2" "$answer"; return 1; }
    names[$2]=$(value nqn)
    ok "clone-$2" "of $1"
}

# use REPLICA [OPTION...]: connects to it, or turns to it if that is done already; sets $nqn,
# $disk and $controller.
use() {
    nqn=${names[$1]}
    shift
    if locate 1; then return 0; fi
    echo "+ connect $nqn $*"
    nvme connect -t tcp -a "$HOST" -s "$DISK_PORT" -n "$nqn" -c 1 -i 2 --ctrl-loss-tmo=120 "$@" &&
        find_disk 1
}

# leave REPLICA: disconnects from it.
leave() {
    nqn=${names[$1]}
    disconnect || bad "leave-$1"
}

# What every scenario's script begins with: checks that are told to the machine, questions to it,
# and the way from an engine to its block device. Needs bash.

# ok NAME [DETAIL], bad NAME [DETAIL]: tells the outcome of a check.
ok() { tell "$1" ok "$2"; }
bad() { tell "$1" FAIL "$2"; }
tell() {
    local detail=${3//$'\n'/ }
    echo "-- $2 $1 $detail"
    printf 'BRAID-CHECK %s %s %s\n' "$1" "$2" "${detail:0:300}" >&8
}

# check NAME COMMAND...: the command succeeds. Its output is in $seen afterwards.
check() {
    local name=$1 status
    shift
    echo "+ $*"
    seen=$("$@" 2>&1)
    status=$?
    echo "$seen"
    if ((status == 0)); then
        ok "$name"
    else
        bad "$name" "status $status: $(blame "$seen")"
    fi
    return $status
}

# blame TEXT: the line that most likely says what went wrong.
blame() { grep -m 1 -i -E 'error|fail|verify:|cannot|bad' <<<"$1" || tail -n 1 <<<"$1"; }

# fails NAME REGEX COMMAND...: the command fails and says what the expression matches.
fails() {
    local name=$1 regex=$2 status
    shift 2
    echo "+ $*"
    seen=$("$@" 2>&1)
    status=$?
    echo "$seen"
    if ((status != 0)) && grep -q -i -E -- "$regex" <<<"$seen"; then
        ok "$name" "$(grep -m 1 -i -E -- "$regex" <<<"$seen")"
    else
        bad "$name" "status $status, no /$regex/ in: $(tail -n 1 <<<"$seen")"
    fi
}

# same NAME WANTED FOUND: both are equal.
same() {
    if [[ "$2" == "$3" ]]; then ok "$1" "$3"; else bad "$1" "wanted '$2', found '$3'"; fi
}

# shows NAME REGEX TEXT: a line of the text matches.
shows() {
    local found
    found=$(grep -m 1 -E -- "$2" <<<"$3")
    if [[ -n $found ]]; then
        ok "$1" "$(tr -s ' \t' ' ' <<<"$found")"
    else
        bad "$1" "no /$2/ in: $(head -n 3 <<<"$3")"
    fi
}

# holds NAME EXPRESSION: the arithmetic expression is true.
holds() {
    if (($2)); then ok "$1" "$2"; else bad "$1" "not true: $2"; fi
}

# field NAME TEXT: the value of `name : value` in nvme-cli's output.
field() { awk -F: -v name="$1" '{key = $1; gsub(/[ \t]/, "", key)} key == name {sub(/^[^:]*:[ \t]*/, ""); print; exit}' <<<"$2"; }

# ask WORD...: has the machine do something; its answer is in $answer.
ask() {
    echo "BRAID-ASK $*" >&8
    read -r answer <&8
    echo "ask $*: $answer"
    [[ $answer == OK* ]]
}

# eventually SECONDS COMMAND...: the command succeeds within the time.
eventually() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        if ((SECONDS >= end)); then return 1; fi
        sleep 0.1
    done
}

# connect ENGINE [OPTION...]: connects to an engine; $disk is its first namespace's device,
# $controller the controller, $nqn the subsystem.
connect() {
    local port=$1_PORT name=$1_NQN
    port=${port^^} name=${name^^}
    nqn=${!name}
    shift
    echo "+ connect $nqn $*"
    nvme connect -t tcp -a "$HOST" -s "${!port}" -n "$nqn" -c 1 "$@" || return 1
    find_disk 1
}

# find_disk NSID: waits for the namespace's block device; sets $disk and $controller.
find_disk() {
    eventually 20 locate "$1" || return 1
    echo "$disk on $controller"
}

locate() {
    local subsystem place
    for subsystem in /sys/class/nvme-subsystem/*; do
        [[ $(cat "$subsystem/subsysnqn" 2>/dev/null) == "$nqn" ]] || continue
        for place in "$subsystem"/nvme*; do
            if [[ -e $place/cntlid ]]; then controller=/dev/${place##*/}; fi
        done
        for place in "$subsystem"/nvme*n* "$subsystem"/nvme*/nvme*n*; do
            [[ ${place##*/} =~ ^nvme[0-9]+n[0-9]+$ && -b /dev/${place##*/} ]] || continue
            [[ $(cat "$place/nsid") == "$1" ]] || continue
            disk=/dev/${place##*/}
            return 0
        done
    done
    return 1
}

# disconnect: ends what connect began.
disconnect() {
    echo "+ disconnect $nqn"
    nvme disconnect -n "$nqn"
}

# verify NAME OPTION...: fio writes and reads back with checksums.
verify() {
    local name=$1
    shift
    check "$name" fio --name="$name" --filename="$disk" --ioengine=libaio --direct=1 \
        --verify=crc32c --verify_fatal=1 --do_verify=1 --randrepeat=1 --norandommap=0 \
        --group_reporting "$@"
}

# A volume of a cluster: made by the control plane, found by its paths, looked at.
. "$HERE/check.sh"
. "$HERE/pool.sh"
. "$HERE/load.sh"

well_known=nqn.2014-08.org.nvmexpress.discovery
engines='engine1 engine2 engine3'

# control WORD...: a command of the control plane; its answer is in $answer, as JSON on one line.
control() { ask control "$@"; }

# done_by NAME WORD...: what the machine is asked for is done.
done_by() {
    local name=$1
    shift
    if ask "$@"; then ok "$name"; else bad "$name" "$answer"; fi
}

# at ENGINE: its address.
at() {
    local name=${1^^}_ADDR
    echo "${!name}"
}

# volume NAME SIZE: makes a volume with a replica on every engine; sets $nqn and $active.
volume() {
    control volume create "$1" --size "$2" --replica engine1 --replica engine2 --replica engine3 ||
        { bad "create-$1" "$answer"; return 1; }
    eventually 120 whole "$1" || { bad "whole-$1" "$answer"; return 1; }
    nqn=$(value nqn)
    ok "whole-$1" "served by $active"
}

# show NAME: its state is in $answer; sets $active, the engine that serves
# it, and $standbys, the others with a path.
show() {
    control volume show "$1" || return 1
    active=$(value engine)
    standbys=$(grep -o '"engine": "[^"]*", "nqn": [^}]*"access": "inaccessible"' <<<"$answer" |
        sed 's/^"engine": "\([^"]*\)".*/\1/' | xargs)
}

# whole NAME: it is served with all its replicas, and another engine has a path.
whole() {
    show "$1" || return 1
    [[ $(value state) == online && $active == engine* && $standbys == engine* ]] || return 1
    [[ $(grep -o '"standing": "member"' <<<"$answer" | wc -l) == 3 ]]
}

# served_by_another NAME ENGINE: an engine other than that one serves it; sets $active.
served_by_another() {
    show "$1"
    [[ $active == engine* && $active != "$2" ]]
}

# redundant NAME: waits until the volume is whole again, and the host knows its paths.
redundant() {
    local began=${EPOCHREALTIME/./}
    if eventually 120 whole data; then
        ok "$1-whole" "after $(((${EPOCHREALTIME/./} - began) / 1000)) ms, served by $active"
    else
        bad "$1-whole" "$answer"
    fi
    known "$1-paths" 40
}

# known NAME SECONDS: within the time the host knows every path, and each as it is.
known() {
    if eventually "$2" all_paths; then
        ok "$1" "$(ways | xargs)"
    else
        bad "$1" "$(ways | xargs)"
    fi
}

# moved NAME ENGINE: another engine than that one comes to serve it.
moved() {
    local began=${EPOCHREALTIME/./}
    if eventually 60 served_by_another data "$2"; then
        ok "$1" "$active instead of $2, $(((${EPOCHREALTIME/./} - began) / 1000)) ms"
    else
        bad "$1" "$answer"
    fi
}

# ways: the engines by which the host reaches $nqn, and how it may take them.
ways() {
    local path state address
    paths | while read -r path state; do
        address=$(sed 's/.*traddr=\([^,]*\).*/\1/' "/sys/class/nvme/$path/address")
        [[ $(cat "/sys/class/nvme/$path/state") == live ]] && echo "$address $state"
    done
}
# all_paths: the host knows them, and each as it is.
all_paths() {
    local seen engine
    seen=$(ways)
    grep -q "^$(at "$active") optimized" <<<"$seen" || return 1
    for engine in $standbys; do
        grep -q "^$(at "$engine") inaccessible" <<<"$seen" || return 1
    done
}

# follow: has the host follow what every engine's discovery service says, as udev would.
follow() {
    local engine
    : >/run/events
    busybox uevent bash "$HERE/autoconnect.sh" >/dev/null 2>&1 &
    follower=$!
    sleep 0.3
    for engine in $engines; do
        check "discovery-$engine" nvme connect -t tcp -a "$(at "$engine")" -s 4420 -n $well_known \
            --keep-alive-tmo=5 --reconnect-delay=1
    done
}

# leave_volume: nobody follows any more, and all is disconnected.
leave_volume() {
    kill "$follower"
    cat /run/events
    check disconnect nvme disconnect-all
    same no-io-error '' "$(dmesg | grep -m 1 'I/O error')"
}

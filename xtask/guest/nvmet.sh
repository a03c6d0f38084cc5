# The kernel's own target on the guest's loopback.

# nvmet_serve NQN PORT FILE [reservations]: serves a file that exists; with the last word hosts can
# reserve it, on Linux 6.13 and later.
nvmet_serve() {
    local root=/sys/kernel/config/nvmet
    mkdir "$root/subsystems/$1"
    echo 1 >"$root/subsystems/$1/attr_allow_any_host"
    mkdir "$root/subsystems/$1/namespaces/1"
    echo 1 >"$root/subsystems/$1/namespaces/1/buffered_io"
    echo -n "$3" >"$root/subsystems/$1/namespaces/1/device_path"
    if [[ -n $4 ]]; then echo 1 >"$root/subsystems/$1/namespaces/1/resv_enable"; fi
    echo 1 >"$root/subsystems/$1/namespaces/1/enable"
    nvmet_listen "$1" "$2"
}

# nvmet_listen NQN PORT: serves a subsystem on a port, or on one more.
nvmet_listen() {
    local root=/sys/kernel/config/nvmet
    if [[ ! -d $root/ports/$2 ]]; then
        mkdir "$root/ports/$2"
        echo ipv4 >"$root/ports/$2/addr_adrfam"
        echo tcp >"$root/ports/$2/addr_trtype"
        echo 127.0.0.1 >"$root/ports/$2/addr_traddr"
        echo "$2" >"$root/ports/$2/addr_trsvcid"
    fi
    ln -s "$root/subsystems/$1" "$root/ports/$2/subsystems/$1"
}

# nvmet_leave NQN PORT: serves it there no more.
nvmet_leave() {
    local root=/sys/kernel/config/nvmet
    rm "$root/ports/$2/subsystems/$1"
    rmdir "$root/ports/$2"
}

# nvmet_access PORT STATE: how hosts may use the namespaces by that port.
nvmet_access() { echo "$2" >"/sys/kernel/config/nvmet/ports/$1/ana_groups/1/ana_state"; }

# nvmet_end NQN PORT
nvmet_end() {
    local root=/sys/kernel/config/nvmet
    nvmet_leave "$1" "$2"
    echo 0 >"$root/subsystems/$1/namespaces/1/enable"
    rmdir "$root/subsystems/$1/namespaces/1" "$root/subsystems/$1"
}

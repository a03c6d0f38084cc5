# The kernel's own target on the guest's loopback.

# nvmet_serve NQN PORT FILE: serves a file that exists.
nvmet_serve() {
    local root=/sys/kernel/config/nvmet
    mkdir "$root/subsystems/$1"
    echo 1 >"$root/subsystems/$1/attr_allow_any_host"
    mkdir "$root/subsystems/$1/namespaces/1"
    echo 1 >"$root/subsystems/$1/namespaces/1/buffered_io"
    echo -n "$3" >"$root/subsystems/$1/namespaces/1/device_path"
    echo 1 >"$root/subsystems/$1/namespaces/1/enable"
    if [[ ! -d $root/ports/$2 ]]; then
        mkdir "$root/ports/$2"
        echo ipv4 >"$root/ports/$2/addr_adrfam"
        echo tcp >"$root/ports/$2/addr_trtype"
        echo 127.0.0.1 >"$root/ports/$2/addr_traddr"
        echo "$2" >"$root/ports/$2/addr_trsvcid"
    fi
    ln -s "$root/subsystems/$1" "$root/ports/$2/subsystems/$1"
}

# nvmet_end NQN PORT
nvmet_end() {
    local root=/sys/kernel/config/nvmet
    rm "$root/ports/$2/subsystems/$1"
    rmdir "$root/ports/$2"
    echo 0 >"$root/subsystems/$1/namespaces/1/enable"
    rmdir "$root/subsystems/$1/namespaces/1" "$root/subsystems/$1"
}

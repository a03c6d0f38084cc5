# Namespaces come and go while others are written: a new one, one that goes under I/O, another one
# under its id, at once and again and again. The host follows without a reconnect.
. "$HERE/check.sh"
. "$HERE/pool.sh"
. "$HERE/load.sh"

connect disk -i 2 || { bad connect "$(dmesg | tail -n 1)"; exit 0; }
ok connect "$disk"
first=$disk
instance=$(cat /sys/class/nvme/"${controller##*/}"/cntlid)
dmesg -C
start_load 8m
# others_go_on NAME: commands to the first namespace are done, from now on.
others_go_on() {
    local disk=$first
    goes_on "$1"
}
others_go_on alone

# attach NAME IDENTITY: namespace 7 gets this identity; $disk is its device then.
attach() {
    managed "$1" namespace attach "$nqn" "mem:16MiB?nsid=7&uuid=$2"
    if eventually 10 is_there "$2"; then ok "$1-seen" "$disk"; else bad "$1-seen" "$(known)"; fi
}
# detach NAME: it goes.
detach() {
    managed "$1" namespace detach "$nqn" 7
    eventually 10 is_gone && ok "$1-seen" || bad "$1-seen" "$(known)"
}
is_there() { locate 7 && [[ $(cat "/sys/block/${disk##*/}/uuid") == "$1" ]]; }
is_gone() { ! locate 7; }
known() { nvme list-ns "$controller" 2>&1 | xargs; cat /sys/block/nvme*/uuid 2>&1 | xargs; }

a=aaaaaaaa-0000-4000-8000-000000000001
b=bbbbbbbb-0000-4000-8000-000000000002
attach attach $a
verify new --rw=randwrite --bs=4k --size=2m --iodepth=8
others_go_on attached

# It goes under I/O: that ends with an error, and neither waits nor hurts the other one.
fio --name=victim --filename="$disk" --ioengine=libaio --direct=1 --rw=randwrite --bs=4k \
    --size=8m --iodepth=8 --time_based --runtime=60 --allow_file_create=0 >/run/victim 2>&1 &
victim=$!
goes_on victim
detach detach
ended() { ! kill -0 $victim 2>/dev/null; }
eventually 20 ended && ok victim-ended || bad victim-ended "$(cat /run/victim)"
wait $victim
holds victim-failed "$? != 0"
others_go_on detached

# Another one under the same id, and that one for another at once.
attach other $b
managed leave namespace detach "$nqn" 7
attach at-once $a
verify at-once --rw=randwrite --bs=4k --size=2m --iodepth=8
check ns-rescan nvme ns-rescan "$controller"
shows list-ns ':0x7$' "$(nvme list-ns "$controller")"
for round in 1 2 3 4 5; do
    manage namespace detach "$nqn" 7 || bad "detach-$round" "$answer"
    manage namespace attach "$nqn" "mem:16MiB?nsid=7&uuid=$b" || bad "attach-$round" "$answer"
    manage namespace detach "$nqn" 7 || bad "detach-again-$round" "$answer"
done
eventually 10 is_gone && ok gone || bad gone "$(known)"
others_go_on churned
disk=$first
end_load no-error
same same-controller "live $instance" \
    "$(cat /sys/class/nvme/"${controller##*/}"/{state,cntlid} | xargs)"
same no-reconnect '' "$(dmesg | grep -m 1 -i -E 'reconnect|resetting')"
check disconnect disconnect

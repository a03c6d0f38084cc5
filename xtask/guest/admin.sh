# nvme-cli asks everything that an administrator asks, and each answer is what it must be.
. "$HERE/check.sh"

connect disk -i 2 || { bad connect "$(dmesg | tail -n 1)"; exit 0; }
ok connect "$disk"
blocks=$((64 << 20 >> 12))

check id-ctrl nvme id-ctrl "$controller"
same id-ctrl-sn BRAIDGUEST0001 "$(field sn "$seen" | xargs)"
shows id-ctrl-mn '^mn +: .*[Bb]raid' "$seen"
same id-ctrl-subnqn "$nqn" "$(field subnqn "$seen")"
same id-ctrl-type 1 "$(field cntrltype "$seen")"
same id-ctrl-cntlid "$(cat /sys/class/nvme/"${controller##*/}"/cntlid)" "$(($(field cntlid "$seen")))"
same id-ctrl-volatile-cache 1 "$(($(field vwc "$seen") & 1))"
same id-ctrl-dsm-and-zeroes 12 "$(($(field oncs "$seen") & 12))"
holds id-ctrl-keep-alive "$(field kas "$seen") > 0"
holds id-ctrl-ioccsz "$(field ioccsz "$seen") >= 4"

check id-ns nvme id-ns "$disk"
same id-ns-size $blocks "$(($(field nsze "$seen")))"
same id-ns-capacity $blocks "$(($(field ncap "$seen")))"
shows id-ns-format '^lbaf +[0-9]+ : ms:0 +lbads:12 .*\(in use\)' "$seen"
nguid=$(field nguid "$seen")
shows id-ns-nguid '[1-9a-f]' "$nguid"

check ns-descs nvme ns-descs "$disk"
uuid=$(field uuid "$seen")
same ns-descs-uuid "$(cat /sys/block/"${disk##*/}"/uuid)" "$uuid"
same ns-descs-uuid-set 6f0c9d3e-2b7a-4c58-9d41-0a1b2c3d4e5f "$uuid"
shows ns-descs-nguid "$nguid" "$seen"

check list nvme list
shows list-disk "^$disk .*BRAIDGUEST0001" "$seen"
check list-ns nvme list-ns "$controller"
shows list-ns-one '\[ *0\]:0x1$' "$seen"
check list-subsys nvme list-subsys
shows list-subsys-nqn "NQN=$nqn" "$seen"
shows list-subsys-path "${controller##*/} tcp traddr=$HOST,trsvcid=$DISK_PORT.* live" "$seen"

dd if=/dev/zero of="$disk" bs=64k count=16 oflag=direct status=none
check smart-log nvme smart-log "$controller"
same smart-log-warning 0 "$(field critical_warning "$seen")"
same smart-log-media-errors 0 "$(field media_errors "$seen")"
shows smart-log-temperature '^temperature' "$seen"
check error-log nvme error-log "$controller"
shows error-log-entries 'Error Log Entries for device' "$seen"
check effects-log nvme effects-log "$controller" -c 0
shows effects-log-names 'ACS6 .*Identify' "$seen"
# effect OPCODE: a command's entry, admin commands first, I/O commands from 256 on.
effect() { nvme get-log "$controller" -i 5 -l 4096 -b 2>/dev/null | od -A n -t u4 -j $(($1 * 4)) -N 4; }
same effects-log-identify 1 "$(($(effect 0x06) & 1))"
same effects-log-unknown 0 "$(($(effect 0xc5)))"
same effects-log-write 1 "$(($(effect 257) & 1))"
same effects-log-flush 1 "$(($(effect 256) & 1))"
same effects-log-zeroes 1 "$(($(effect 264) & 1))"
check fw-log nvme fw-log "$controller"
shows fw-log-slot 'frs1' "$seen"
check supported-log-pages nvme get-log "$controller" -i 0 -l 1024

check get-feature-queues nvme get-feature "$controller" -f 7
shows get-feature-queues-value 'Current value:0?x?[0-9a-f]+' "$seen"
check get-feature-keep-alive nvme get-feature "$controller" -f 0xf
shows get-feature-keep-alive-value 'Current value:(0x)?0*1388' "$seen"
check get-feature-cache nvme get-feature "$controller" -f 6
shows get-feature-cache-value 'Current value:(0x)?0*1$' "$seen"
check set-feature-events nvme set-feature "$controller" -f 0xb -v 0x100
check get-feature-events nvme get-feature "$controller" -f 0xb
shows get-feature-events-value 'Current value:(0x)?0*100$' "$seen"
check set-feature-temperature nvme set-feature "$controller" -f 4 -v 0x160
check get-feature-temperature nvme get-feature "$controller" -f 4
shows get-feature-temperature-value 'Current value:(0x)?0*160$' "$seen"
fails get-feature-unknown 'Invalid Field' nvme get-feature "$controller" -f 0x7f

# I/O commands by hand, each seen in the data.
block() { nvme read "$disk" -s "$1" -c 0 -z 4096 -d /run/block >/dev/null 2>&1; sha256sum </run/block; }
zero=$(head -c 4096 /dev/zero | sha256sum)
head -c 131072 /dev/urandom >/run/pattern
check write nvme write "$disk" -s 64 -c 31 -z 131072 -d /run/pattern
check read nvme read "$disk" -s 64 -c 31 -z 131072 -d /run/pattern-read
check read-same cmp /run/pattern /run/pattern-read
check write-fua nvme write "$disk" -s 64 -c 31 -z 131072 -d /run/pattern --force-unit-access
check flush nvme flush "$controller" -n 1
shows flush-says 'NVMe Flush: success' "$seen"

before=$(block 71) after=$(block 80)
check write-zeroes nvme write-zeroes "$disk" -s 72 -c 7
shows write-zeroes-says 'Success' "$seen"
same write-zeroes-first "$zero" "$(block 72)"
same write-zeroes-last "$zero" "$(block 79)"
same write-zeroes-before "$before" "$(block 71)"
same write-zeroes-after "$after" "$(block 80)"

before=$(block 83) after=$(block 88)
check dsm nvme dsm "$disk" -d -s 84 -b 4
same dsm-first "$zero" "$(block 84)"
same dsm-last "$zero" "$(block 87)"
same dsm-before "$before" "$(block 83)"
same dsm-after "$after" "$(block 88)"
check dsm-ranges nvme dsm "$disk" -d -s 65,90 -b 1,2
same dsm-ranges-first "$zero" "$(block 65)"
same dsm-ranges-second "$zero" "$(block 91)"

# Wrong commands get the status that says so, and the controller lives on.
fails beyond-the-end 'LBA out of range' nvme read "$disk" -s $blocks -c 0 -z 4096 -d /run/block
fails across-the-end 'LBA out of range' nvme write "$disk" -s $((blocks - 1)) -c 1 -z 8192 -d /run/pattern
fails unknown-opcode 'Invalid Command Opcode' nvme admin-passthru "$controller" --opcode=0xc5
fails unknown-namespace 'Invalid Namespace' nvme ns-descs "$controller" -n 7
fails unknown-log 'Invalid Log Page' nvme get-log "$controller" -i 0xc9 -l 512
same still-live live "$(cat /sys/class/nvme/"${controller##*/}"/state)"

check ns-rescan nvme ns-rescan "$controller"
check keep-alive-idle sleep 6
same live-after-idle live "$(cat /sys/class/nvme/"${controller##*/}"/state)"
check disconnect disconnect

# Snapshots of replicas that are being written, clones beside their origins, and all of it deleted
# in another order than it was made.
. "$HERE/check.sh"
. "$HERE/pool.sh"
. "$HERE/records.sh"

# held NAME: what was noted so far must be in a snapshot that is asked for from now on.
held() { cp $journal "/run/held-$1"; }

# found CLONE NAME: the clone has it.
found() {
    use "$1" || { bad "connect-$1" "$(dmesg | tail -n 1)"; return; }
    check "$1-records" "$XTASK" record check --device "$disk" --journal "/run/held-$2"
}

# --- Records on one replica and fio on another one while both are snapshotted.
new records 64MiB && new vm 32MiB || exit 0
use records || { bad connect-records "$(dmesg | tail -n 1)"; exit 0; }
write_records 60
goes_on writing
use vm || { bad connect-vm "$(dmesg | tail -n 1)"; exit 0; }
fio --name=load --filename="$disk" --ioengine=libaio --direct=1 --rw=randwrite \
    --bssplit=4k/60:16k/40 --size=8M --io_size=24M --iodepth=8 --fsync=32 --norandommap \
    --verify=crc32c --verify_fatal=1 --do_verify=1 --verify_backlog=512 >/run/fio 2>&1 &
load=$!
for name in a b c; do
    sleep 1
    held $name
    managed snapshot-$name snapshot create records@$name
    managed load-$name snapshot create vm@$name
done
use records
end_records
all_there origin
wait $load
same load 0 $?
blame "$(cat /run/fio)"
for name in a b c; do
    cloned records@$name records-$name && found records-$name $name
done
leave records-a
managed destroy-middle snapshot destroy records@b --yes
found records-b b
refused busy-name 'is there and differs' replica create records-b --size 1MiB

# --- File systems: the clone beside its origin, each with a life of its own.
# life KIND SIZE
life() {
    local kind=$1 origin=/run/$1 beside=/run/$1-clone device
    mkdir -p "$origin" $beside
    new "$kind" "$2" && use "$kind" || { bad "$kind-connect" "$(dmesg | tail -n 1)"; return; }
    check "$kind-mkfs" mkfs."$kind" -q "$disk" || return
    check "$kind-mount" mount "$disk" "$origin" || return
    dd if=/dev/urandom of="$origin/kept" bs=1M count=2 status=none
    cp "$origin/kept" /run/kept
    sync "$origin/kept"
    fio --name=load --directory="$origin" --rw=randwrite --bs=4k --size=2M --fsync=8 \
        --verify=crc32c --do_verify=1 >"/run/fio-$kind" 2>&1 &
    load=$!
    sleep 0.5
    managed "$kind-snapshot" snapshot create "$kind@busy"
    wait $load
    same "$kind-load" 0 $?
    echo changed >"$origin/kept"
    sync "$origin/kept"
    cloned "$kind@busy" "$kind-clone" && use "$kind-clone" || return
    if [[ $kind == xfs ]]; then
        # XFS knows two file systems apart by their identifiers, and changes those of a clean one.
        fails xfs-same-identifier 'mount' mount "$disk" $beside
        check xfs-replay mount -o nouuid "$disk" $beside
        umount $beside
        check xfs-identifier xfs_admin -U generate "$disk"
    fi
    check "$kind-beside" mount "$disk" $beside || return
    check "$kind-kept" cmp /run/kept $beside/kept
    same "$kind-changed" changed "$(cat "$origin/kept")"
    echo clone >$beside/own
    rm $beside/kept
    sync $beside
    same "$kind-apart" 'changed 1' "$(cat "$origin/kept") $(ls $beside | grep -c own)"
    umount $beside "$origin"
    check "$kind-clone-consistent" check_filesystem "$kind" "$disk"
    leave "$kind"
    # The clone outlives its origin and the snapshot between them.
    managed "$kind-origin-destroyed" replica destroy "$kind" --yes
    manage snapshot list
    managed "$kind-snapshot-destroyed" snapshot destroy "$(id_of busy)" --yes
    check "$kind-clone-alone" mount "$disk" $beside || return
    same "$kind-clone-own" clone "$(cat $beside/own)"
    umount $beside
    leave "$kind-clone"
    managed "$kind-clone-destroyed" replica destroy "$kind-clone" --yes
}

check_filesystem() {
    case $1 in
    ext4) fsck.ext4 -f -n "$2" ;;
    xfs) xfs_repair -n "$2" ;;
    esac
}

# id_of NAME: the identity of the only snapshot of this name in $answer; its replica is gone.
ids() { grep -o '"uuid": "[^"]*"' | cut -d '"' -f 4; }
id_of() { tr '}' '\n' <<<"$answer" | grep "\"name\": \"$1\"" | ids; }

life ext4 32MiB
life xfs 320MiB

# --- The rest goes, first and last before what is between.
for name in records-b records-c records vm; do leave $name; done
managed destroy-clone-c replica destroy records-c --yes
managed destroy-a snapshot destroy records@a --yes
managed destroy-load-b snapshot destroy vm@b --yes
found records-a a
leave records-a
managed destroy-records replica destroy records --yes
managed destroy-clone-a replica destroy records-a --yes
managed destroy-vm replica destroy vm --yes
managed destroy-clone-b replica destroy records-b --yes
manage snapshot list
for id in $(ids <<<"$answer"); do
    managed destroy-left snapshot destroy "$id" --yes
done
empty() { figures && ((data == 0)); }
if eventually 20 empty; then ok all-given-back; else bad all-given-back "$data bytes"; fi
sound no-error
intact verified

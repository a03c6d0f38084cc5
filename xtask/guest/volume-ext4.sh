# A file system on a volume, written with fsync all the while, through ten fail-overs.
. "$HERE/volume.sh"

volume data 96MiB || exit 0
follow
find_disk 1 && ok disk "$disk" || { bad disk "$(cat /run/events)"; exit 0; }
known paths 20
check mkfs mkfs.ext4 -q -b 4096 "$disk"
mkdir -p /run/mnt
check mount mount "$disk" /run/mnt

# Files that say themselves what is in them; each is there once its name is in the list.
write_files() {
    local number=0
    while [[ ! -e /run/enough ]]; do
        number=$((number + 1))
        head -c 20000 /dev/urandom >/run/content
        sum=$(sha256sum </run/content)
        name=file-$((number % 400))
        dd if=/run/content of=/run/mnt/$name bs=64k conv=fsync status=none || return 1
        echo "$name $sum" >>/run/files
    done
}
rm -f /run/enough /run/files
write_files 2>/run/writer &
writer=$!
written() { wc -l </run/files; }
more_files() { (($(written) > $1)); }
eventually 30 more_files 3

for round in 1 2 3 4 5 6 7 8 9 10; do
    lost=$active
    case $((round % 3)) in
    0) how=killed && done_by kill-$round kill "$lost" ;;
    1) how=taken-over && done_by take-over-$round control volume take-over data --yes ;;
    2) how=handed-over && done_by hand-over-$round control volume hand-over data ;;
    esac
    moved $how-$round "$lost"
    before=$(written)
    if eventually 30 more_files $((before + 3)); then
        ok writes-$round "$(written) files"
    else
        bad writes-$round "no more than $before"
    fi
    if [[ $how == killed ]]; then
        done_by start-$round start "$lost"
        redundant round-$round
    else
        eventually 60 whole data || bad round-$round-whole "$answer"
    fi
done
touch /run/enough
wait $writer
same writer 0 $?
same writer-said '' "$(cat /run/writer)"

intact_files() {
    local wrong=0 name sum
    tac /run/files | sort -u -k 1,1 >/run/last
    while read -r name sum _; do
        [[ $(sha256sum <"/run/mnt/$name") == "$sum  -" ]] || wrong=$((wrong + 1))
    done </run/last
    same "$1" "0 of $(wc -l </run/last)" "$wrong of $(wc -l </run/last)"
}
check umount umount /run/mnt
check fsck e2fsck -f -n "$disk"
check mount-again mount "$disk" /run/mnt
intact_files files-intact
same not-read-only rw "$(awk '$2 == "/run/mnt" {print substr($4, 1, 2)}' /proc/mounts)"
check umount-again umount /run/mnt
leave_volume

# A pool is filled to its last cluster: the host is told, what it has can be overwritten, and when
# space is given back it goes on.
. "$HERE/check.sh"
. "$HERE/pool.sh"

point=/run/mount
mkdir -p $point
head -c 4M /dev/urandom >/run/random
# pour BYTES: so many bytes of that, again and again.
pour() { while cat /run/random; do :; done 2>/dev/null | head -c "$1"; }
# put BYTES OPERAND...: dd copies them.
put() {
    local bytes=$1
    shift
    pour "$bytes" | dd iflag=fullblock bs=1M "$@"
}
holds_random() { cmp -n "$((4 << 20))" "$1" /run/random; }

new vm 256MiB && new files 64MiB || exit 0
use files || { bad connect-files "$(dmesg | tail -n 1)"; exit 0; }
files=$disk
check mkfs mkfs.ext4 -q "$files"
check mount mount "$files" $point
cp /run/random $point/before
sync $point/before
use vm || { bad connect-vm "$(dmesg | tail -n 1)"; exit 0; }

fails full 'No space left' put 60M of="$disk" oflag=direct
# What was left of the last megabyte.
fails full-to-the-last 'No space left' put 8M of="$disk" bs=256k seek=512 oflag=direct
fails one-block 'No space left' dd if=/run/random of="$disk" bs=4k count=1 seek=50000 oflag=direct
figures
same nothing-available 0 "$available"
filled=$data
check flush nvme flush "$controller" -n 1

# What the replica has stays and can be overwritten.
check first-written holds_random "$disk"
head -c 4M /dev/urandom >/run/random
check overwrite dd if=/run/random of="$disk" bs=64k oflag=direct
blockdev --flushbufs "$disk"
check overwritten holds_random "$disk"
figures
same nothing-more $filled "$data"

# A file system is told too.
fails files-full 'No space|Input/output|Read-only' \
    put 16M of=$point/after conv=fsync
umount $point

# Space is given back, and everything goes on.
check discard blkdiscard -o 4M -l 16M "$disk"
back() { figures && ((available >= 15 << 20)); }
if eventually 20 back; then ok space "$((available >> 20)) MiB"; else bad space "$available"; fi
check one-block-now dd if=/run/random of="$disk" bs=4k count=1 seek=50000 oflag=direct
check more-now dd if=/run/random of="$disk" bs=1M seek=200 oflag=direct
check fsck bash -c "fsck.ext4 -f -y $files; (( \$? < 4 ))"
check mount-again mount "$files" $point || exit 0
put 6M of=$point/now conv=fsync status=none
same written-now 0 $?
same file-before "$((4 << 20))" "$(stat -c %s $point/before)"
check unmount umount $point

# A replica goes away while the pool is full.
fails full-again 'No space left' put 40M of="$disk" seek=100 oflag=direct
check still-overwritten holds_random "$disk"
managed delete-connected replica destroy vm --yes
back() { figures && ((available >= 16 << 20)); }
if eventually 20 back; then ok deleted "$((available >> 20)) MiB"; else bad deleted "$available"; fi
eventually 20 test ! -b "$disk"
use files
check files-work dd if=/run/random of="$files" bs=1M seek=32 oflag=direct
sound no-error
intact verified

# A file system's whole life on our disk: $kind says which, $options how to connect. Who includes
# this may have defined before: attach, which connects; used, which measures; the sizes in MiB.
. "$HERE/check.sh"

large=${large:-64} random=${random:-24}
declare -F attach >/dev/null || attach() { connect disk "$@"; }

point=/run/mount
mkdir -p $point

# Files of many sizes, from what the machine has.
copy_tree() {
    mkdir -p $point/tree
    cp -rL /usr/share/perl5 $point/tree/
    dd if=/dev/urandom of=$point/tree/random bs=1M count=$random status=none
}

sums() { (cd $point && find . -type f ! -name lost+found -print0 | sort -z | xargs -0 sha256sum); }

check_filesystem() {
    case $kind in
    ext4) fsck.ext4 -f -n "$1" ;;
    xfs) xfs_repair -n "$1" ;;
    esac
}

# used: what the file takes on the machine's disk, in MiB.
declare -F used >/dev/null || used() {
    ask blocks disk || return 1
    echo "${answer#OK }" >/run/blocks
    mib=$((${answer#OK } / 2048))
}

attach $options || { bad connect "$(dmesg | tail -n 1)"; exit 0; }
ok connect "$disk"
check mkfs mkfs.$kind -q "$disk" || exit 0
used
holds sparse-after-mkfs "$mib < 4 * large"
check mount mount "$disk" $point || exit 0

check fsync-heavy fio --name=fsync --directory=$point --rw=randwrite --bs=4k --size=2M --fsync=1 \
    --numjobs=2 --thread
check small-files bash -c "mkdir $point/small; for i in {1..40}; do
    echo \$i >$point/small/\$i; sync $point/small/\$i || exit 1; done"
copy_tree
sync
sums >/run/sums
holds files "$(wc -l </run/sums) > 60"

# Space that is deleted and trimmed goes back to the machine.
dd if=/dev/urandom of=$point/large bs=1M count=$large status=none
sync
used
before=$mib
rm $point/large
sync
check fstrim fstrim -v $point
shows trimmed '[1-9][0-9]* bytes' "$seen"
used
holds given-back "$before - $mib >= $large * 7 / 8"

check unmount umount $point
check disconnect disconnect
attach $options || { bad reconnect "$(dmesg | tail -n 1)"; exit 0; }
check consistent check_filesystem "$disk"
check remount mount -o discard "$disk" $point || exit 0
sums >/run/sums-again
same content "$(sha256sum </run/sums)" "$(sha256sum </run/sums-again)"

# The same without being asked, as mounted with discard.
dd if=/dev/urandom of=$point/large bs=1M count=$large status=none
sync
used
before=$mib
rm $point/large
given_back() { sync && sleep 1 && used && ((before - mib >= large * 7 / 8)); }
if eventually 20 given_back; then ok online-discard "$before to $mib MiB"; else
    bad online-discard "$before to $mib MiB"
fi
check last-unmount umount $point
check last-disconnect disconnect

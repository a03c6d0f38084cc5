# fio writes mixed sizes at depth and verifies every block by CRC32C.
. "$HERE/check.sh"

if connect disk -i 4; then
    verify mixed-sizes --rw=randrw --bssplit=4k/30:8k/20:16k/20:64k/15:128k/10:512k/5 \
        --size=24M --iodepth=16 --verify_interval=4096
    verify sequential-large --rw=write --bs=1M --size=32M --iodepth=4
    verify many-jobs --rw=randwrite --bs=4k --size=4M --iodepth=8 --numjobs=4 \
        --offset_increment=16M --thread
    check disconnect disconnect
else
    bad connect "$(dmesg | tail -n 1)"
fi

if connect small -i 4 --hdr-digest --data-digest; then
    verify small-mixed --rw=randrw --bssplit=512/30:1k/10:1536/10:4k/20:9k/10:64k/20 --size=8M \
        --iodepth=16 --verify_interval=512
    verify small-odd-size --rw=randwrite --bs=3584 --size=4M --iodepth=8
    check small-disconnect disconnect
else
    bad small-connect "$(dmesg | tail -n 1)"
fi

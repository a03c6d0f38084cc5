# XFS on a thin replica that is larger than its pool, on blocks of 512 bytes, with digests.
kind=xfs size="320MiB --block-size 512" options="--hdr-digest --data-digest"
. "$HERE/thin.sh"

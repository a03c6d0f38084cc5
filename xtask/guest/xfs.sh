# XFS on blocks of 512 bytes, with digests.
kind=xfs options="-i 2 --hdr-digest --data-digest"
. "$HERE/filesystem.sh"

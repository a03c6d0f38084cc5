# ext4 on a thin replica.
kind=ext4 size=256MiB
. "$HERE/thin.sh"

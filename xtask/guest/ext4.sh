# ext4 on four queues.
kind=ext4 options="-i 4"
. "$HERE/filesystem.sh"

# The life of a file system on a thin replica: what is given back is seen in the pool's figures.
. "$HERE/check.sh"
. "$HERE/pool.sh"

attach() { use thin "$@"; }
used() { figures && mib=$((data >> 20)); }
large=20 random=6

new thin $size || exit 0
. "$HERE/filesystem.sh"
sound no-error
managed destroy replica destroy thin --yes
empty() { figures && ((data == 0)); }
if eventually 20 empty; then ok all-given-back; else bad all-given-back "$data bytes"; fi
intact verified

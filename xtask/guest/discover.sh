# The discovery log, by a passing and by a lasting controller.
. "$HERE/check.sh"

well_known=nqn.2014-08.org.nvmexpress.discovery

check discover nvme discover -t tcp -a "$HOST" -s "$DISK_PORT"
log=$seen
shows subsystem-nqn "^subnqn: +$DISK_NQN\$" "$log"
shows transport '^trtype: +tcp' "$log"
shows family '^adrfam: +ipv4' "$log"
shows address '^traddr: +127\.0\.0\.1' "$log"
shows service "^trsvcid: +$DISK_PORT *\$" "$log"
shows subsystem-type '^subtype: +nvme subsystem' "$log"
same one-subsystem 1 "$(grep -c "subnqn: *$DISK_NQN" <<<"$log")"
same nothing-left '' "$(ls /sys/class/nvme)"

check lasting-controller nvme connect -t tcp -a "$HOST" -s "$DISK_PORT" -n $well_known -k 5
controller=/dev/$(ls /sys/class/nvme | head -n 1)
same lasting-type discovery "$(cat /sys/class/nvme/"${controller##*/}"/cntrltype)"
check lasting-discover nvme discover -d "${controller##*/}" -t tcp -a "$HOST" -s "$DISK_PORT"
shows lasting-log "^subnqn: +$DISK_NQN\$" "$seen"
# Longer than two keep-alive intervals: the controller must still be live.
sleep 7
same lasting-live live "$(cat /sys/class/nvme/"${controller##*/}"/state)"
check lasting-disconnect nvme disconnect -d "$controller"

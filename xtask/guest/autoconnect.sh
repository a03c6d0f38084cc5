# What udev does by nvme-cli's rules on a usual machine, for one event of the kernel: a discovery
# controller whose log has changed, or that is connected again, has its log read and all that it
# names connected. The event is in the environment; every one is written to the console.
[[ $ACTION == change && $SUBSYSTEM == nvme ]] || exit 0
device=${DEVPATH##*/}
echo "event of $device: aen '$NVME_AEN', event '$NVME_EVENT'" >>/run/events
if [[ $NVME_AEN != 0x70f002 ]]; then
    # shellcheck disable=SC2154
    [[ $NVME_EVENT == rediscover || $NVME_EVENT == connected ]] || exit 0
    [[ $(cat "/sys/class/nvme/$device/cntrltype") == discovery ]] || exit 0
fi
(
    flock 9
    echo "$device: its log is read at $EPOCHREALTIME"
    nvme connect-all --device="$device" --transport="$NVME_TRTYPE" --traddr="$NVME_TRADDR" \
        --trsvcid="$NVME_TRSVCID" --keep-alive-tmo=2 --reconnect-delay=1 --nr-io-queues=2
    echo "$device: $? at $EPOCHREALTIME"
) 9>/run/autoconnect.lock >>/run/events 2>&1 &

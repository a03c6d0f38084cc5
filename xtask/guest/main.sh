# Runs in the guest on the machine's own root: takes orders over the second serial port and
# answers there. The first one is the console; all that a scenario prints goes to it.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
HERE=$(dirname "$0")
export HERE
exec </dev/null
exec 8<>/dev/ttyS1
stty -F /dev/ttyS1 raw -echo
. "$HERE/check.sh"

# One fixed host, whatever the machine's own files say; each guest of several is another one.
number=$(sed -n 's/.*braid.number=\([0-9]*\).*/\1/p' /proc/cmdline)
hostid=22222222-2222-4222-8222-22222222222$((${number:-1} + 1))
mkdir -p /etc/nvme
echo "nqn.2014-08.org.nvmexpress:uuid:$hostid" >/etc/nvme/hostnqn
echo "$hostid" >/etc/nvme/hostid
dmesg -n 4

# Leaves nothing of a scenario behind, and looks for what the kernel complained about.
clean() {
    awk '$1 ~ "^/dev/nvme" {print $2}' /proc/mounts | xargs -r -n 1 umount
    [ -n "$(ls /sys/class/nvme)" ] && nvme disconnect-all
    dmesg >/run/dmesg
    local wrong
    wrong=$(grep -m 1 -E 'BUG|Oops|WARNING:|Call Trace|hung_task|blocked for more' /run/dmesg)
    same kernel-log '' "$wrong"
    if [ -n "$(ls /sys/class/nvme)" ]; then bad controllers-left "$(ls /sys/class/nvme)"; fi
}

echo "BRAID-READY $(uname -r)" >&8
while read -r verb name settings <&8; do
    case $verb in
    run)
        echo "==== $name $settings"
        dmesg -C
        env $settings bash "$HERE/$name.sh"
        status=$?
        clean
        echo "BRAID-DONE $status" >&8
        ;;
    do)
        # One command, for the script of another guest.
        echo "+ $name $settings"
        said=$(eval "$name $settings" 2>&1)
        status=$?
        echo "$said"
        said=${said//$'\n'/ }
        echo "BRAID-SAID $status ${said:0:2000}" >&8
        ;;
    off)
        echo "BRAID-BYE" >&8
        sleep 0.2
        /bin/busybox poweroff -f
        ;;
    esac
done

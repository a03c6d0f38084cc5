# Runs in the guest on the machine's own root: takes orders over the second serial port and
# answers there. The first one is the console; all that a scenario prints goes to it.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
HERE=$(dirname "$0")
export HERE
exec </dev/null
exec 8<>/dev/ttyS1
stty -F /dev/ttyS1 raw -echo

echo "BRAID-READY $(uname -r)" >&8
while read -r verb name settings <&8; do
    case $verb in
    run)
        echo "==== $name $settings"
        env $settings bash "$HERE/$name.sh"
        echo "BRAID-DONE $name $?" >&8
        ;;
    off)
        echo "BRAID-BYE" >&8
        sleep 0.2
        /bin/busybox poweroff -f
        ;;
    *) echo "BRAID-WHAT $verb" >&8 ;;
    esac
done

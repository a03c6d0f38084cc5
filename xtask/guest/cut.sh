# The same with an engine that loses what was not flushed when it is killed, as a power cut would.
volatile=--volatile
. "$HERE/kill.sh"

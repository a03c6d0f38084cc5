# Writes numbered records while the engine goes away and comes back, then reads every one.

journal=/run/journal

# write_records SECONDS [OPTION]: starts the writer.
write_records() {
    rm -f $journal $journal.stop
    "$XTASK" record write --device "$disk" --seconds "$1" --journal $journal $2 \
        >/run/writer 2>&1 &
    writer=$!
}

# end_records: has the writer end before its time.
end_records() { touch $journal.stop; }

acknowledged() { if [[ -e $journal ]]; then wc -l <$journal; else echo 0; fi; }
more_than() { (($(acknowledged) > $1)); }

# goes_on NAME: the writer gets further acknowledgements.
goes_on() {
    local now
    now=$(acknowledged)
    if eventually 30 more_than $((now + 20)); then
        ok "$1" "$now records and more"
    else
        bad "$1" "stuck at $now: $(dmesg | tail -n 1)"
        dmesg | tail -n 40
        cat /proc/$writer/task/*/stack
    fi
}

# all_there NAME: the writer ended well, and a fresh reader finds all that it was promised.
all_there() {
    local status
    wait "$writer"
    status=$?
    cat /run/writer
    same "$1-writer" 0 "$status"
    check "$1-records" "$XTASK" record check --device "$disk" --journal $journal
    ok "$1-found" "$(tail -n 1 <<<"$seen")"
}

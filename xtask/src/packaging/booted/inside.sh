# Runs in the guest, once systemd has booted it: is the service there, and does it keep what it promises?
# Prints PASS, FAIL or INFO lines and END; then its unit turns the guest off.
set -u
unit=msync-trace.service
pins=/sys/fs/bpf/msync-trace
# As docs/serve.md has them.
incident=aad3997851b74b1c83da5c266a684fb5
start=95830fd09fa64c0c9740dacf5d991fc0
stop=b93050926b224992a402bbdad6e7e852
stty -onlcr 2>/dev/null
export LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_PAGER='' SYSTEMD_COLORS=0
echo BEGIN

# NAME COMMAND: the shell text has to succeed.
try() {
    local begun=$SECONDS
    if said=$( (eval "$2") 2>&1 ); then
        echo "PASS $1 ($((SECONDS - begun)) s, at $SECONDS s)"
    else
        echo "FAIL $1: $(tail -n 6 <<<"$said" | tr '\n' ' ')"
        failed=1
    fi
}
failed=0

# SECONDS COMMAND: until the shell text succeeds.
within() {
    local deadline=$((SECONDS + $1))
    until eval "$2"; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            echo "not within $1 s: $2"
            systemctl status --no-pager --lines=5 "$unit"
            return 1
        fi
        sleep 0.2
    done
}

shown() { systemctl show --value -p "$1" "$unit"; }
# Not 0, which kill takes for our own process group.
main() { shown MainPID | grep -vx 0; }
active() { systemctl is-active --quiet "$unit"; }

# A program whose disk refuses four pages of its file: it was told once.
begin_to_lose() {
    coproc LOSER { exec /opt/booted/fails_on_command; }
    loser=$LOSER_PID
    # Copies of its own descriptors, which subshells do not get.
    exec {to}>&"${LOSER[1]}" {from}<&"${LOSER[0]}"
    exec {LOSER[1]}>&- {LOSER[0]}<&-
    read -r -t 60 -u "$from" word path _ && [ "$word" = failed ]
}
# It asks again, and is lied to.
false_success() {
    echo msync >&"$to"
    read -r -t 30 -u "$from" word && [ "$word" = 'told success' ]
}
stop_losing() {
    exec {to}>&- {from}<&-
    wait "$loser"
}
# What the journal has of the program that was lied to last: a line of JSON each.
entries() { journalctl -q -o json "MESSAGE_ID=$incident" "MSYNC_TRACE_PID=$loser"; }
reported() { entries | grep -q .; }
# One, with the bytes that were lost; and a moment later still one.
once() {
    within 20 reported || return 1
    sleep 1
    [ "$(entries | wc -l)" = 1 ] || { echo "not one: $(entries)"; return 1; }
    entries | grep -q '"MSYNC_TRACE_EVIDENCE":"page"' &&
        entries | grep -q '"MSYNC_TRACE_TOLD":"caller"' ||
        { entries; return 1; }
}
lost_nothing() {
    echo "FAIL $1: nothing was lost"
    failed=1
}
# NAME COMMAND: what happens between the failure and the false success. One incident all the same.
between() {
    if ! begin_to_lose; then
        lost_nothing "$1"
        return
    fi
    try "$1" "$2 && within 60 active && false_success && once"
    stop_losing
}

finish() {
    if [ "$failed" = 1 ]; then
        # For the log: what systemd and the service said.
        journalctl -q -b -o short-monotonic _PID=1 "UNIT=$unit" + "_SYSTEMD_UNIT=$unit" | tail -n 100 |
            sed 's/^/| /'
        dmesg | tail -n 30 | sed 's/^/| /'
    fi
    echo "INFO took $SECONDS s after the boot"
    echo END
    exit
}

echo "INFO booted in $(cut -d ' ' -f 1 /proc/uptime) s: $(uname -r), $(systemctl --version | head -n 1)"
try "the service is active after the boot" 'within 1 active'
# Everything else takes a service.
active || finish
try "it was ready before sysinit.target was reached" '
    ready=$(shown ActiveEnterTimestampMonotonic)
    sysinit=$(systemctl show --value -p ActiveEnterTimestampMonotonic sysinit.target)
    echo "ready $ready, sysinit.target $sysinit"
    [ "$(shown Type)" = notify ] && [ "$ready" -gt 0 ] && [ "$ready" -le "$sysinit" ]'
try "it started at the first attempt" '[ "$(shown NRestarts)" = 0 ] && [ "$(shown Result)" = success ]'
try "nobody complains about the unit" '
    complaints=$(journalctl -q -b -o cat -p warning _PID=1 "UNIT=$unit")
    echo "$complaints"; [ -z "$complaints" ] && systemd-analyze verify --man=no "$unit"'
try "it says that everything is seen" '
    shown StatusText; [ "$(shown StatusText)" = "0 incidents; everything is seen" ]'
try "its start is in the journal" 'journalctl -q -o json "MESSAGE_ID=$start" | grep -q "_SYSTEMD_UNIT"'
try "hooks and maps are pinned, for root alone" '
    ls "$pins"/*; [ -e "$(echo "$pins"/*/STATE)" ] && [ "$(stat -c %a "$pins")" = 700 ]'
try "addresses of kernel functions are shown to it" '
    shown=/proc/$(main)/root/run/msync-trace/kallsyms
    ls -l "$shown"; grep -m 1 " ext4_end_bio" "$shown" && ! grep -q . "/proc/$(main)/root/proc/kallsyms"'
# As docs/restart.md says, in every thread.
try "it keeps the documented capabilities" '
    kept=$(printf %016x $((1 << 2 | 1 << 19 | 1 << 34 | 1 << 38 | 1 << 39)))
    for thread in /proc/"$(main)"/task/*/status; do
        grep -E "^(Cap|NoNew|Seccomp)" "$thread"
        [ "$(sed -n "s/^CapPrm:\t//p" "$thread")" = "$kept" ] &&
            [ "$(sed -n "s/^CapEff:\t//p" "$thread")" = "$kept" ] &&
            grep -q "^CapInh:.0*$" "$thread" && grep -q "^NoNewPrivs:.1" "$thread" &&
            grep -q "^Seccomp:.2" "$thread" || exit 1
    done'
try "at shutdown it stops after the others, before the filesystems" '
    systemctl show -p Before -p Conflicts -p After "$unit" | tr " " "\n" >/tmp/order
    cat /tmp/order; grep -q "^Before=.*shutdown.target\|^shutdown.target" /tmp/order &&
        grep -qx "Conflicts=shutdown.target" /tmp/order && grep -q "local-fs.target" /tmp/order'
try "selftest loses data, and the service tells of it" '
    msync-trace selftest && within 10 "[ \$(journalctl -q -o cat MESSAGE_ID=$incident | wc -l) -ge 3 ]"'

if begin_to_lose; then
    try "a loss is found by its MESSAGE_ID, with its fields" '
        false_success && once || exit 1
        entry=$(entries)
        echo "$entry"
        for field in "MESSAGE_ID\":\"$incident" "_SYSTEMD_UNIT\":\"$unit" "PRIORITY\":\"2" \
            "MSYNC_TRACE_TYPE\":\"incident" "MSYNC_TRACE_FSTYPE\":\"ext4" "MSYNC_TRACE_ERROR\":\"E" \
            "MSYNC_TRACE_CALL\":\"msync" "MSYNC_TRACE_PID\":\"$loser" "MSYNC_TRACE_UID\":\"0" \
            "MSYNC_TRACE_COMM\":\"fails_on_comman" "MSYNC_TRACE_EXE\":\"/opt/booted/fails_on_command" \
            "MSYNC_TRACE_CGROUP\":\"/system.slice/booted.service" "MSYNC_TRACE_DEVICE\":\"loop" \
            "MSYNC_TRACE_COVERAGE\":\"inside" "MSYNC_TRACE_PATH\":\"" "MSYNC_TRACE_BYTES\":\"" \
            "MSYNC_TRACE_INODE\":\"" "MSYNC_TRACE_JSON\":\""; do
            grep -qF "\"$field" <<<"$entry" || { echo "no $field"; exit 1; }
        done
        grep -qF "${path##*/}" <<<"$entry"'
    stop_losing
else
    lost_nothing "a loss"
fi

between "killed between failure and msync: one incident" '
    before=$(main) && kill -KILL "$before" && within 60 "active && [ \$(main) != $before ]" &&
        [ "$(shown NRestarts)" = 1 ]'
if begin_to_lose; then
    try "killed, and msync while none runs: one incident" \
        'kill -KILL "$(main)" && false_success && ! active && within 60 active && once'
    stop_losing
else
    lost_nothing "killed, and msync while none runs"
fi
between "stopped and started between failure and msync: one incident" '
    systemctl stop "$unit"; shown Result; shown ExecMainStatus
    [ "$(shown Result)" = success ] && [ "$(shown ExecMainStatus)" = 0 ] &&
        journalctl -q -o json "MESSAGE_ID=$stop" | tail -n 1 | grep -q "PRIORITY\":\"6" &&
        [ -e "$(echo "$pins"/*/STATE)" ] && systemctl start "$unit"'
try "it feeds the watchdog" '
    [ "$(shown WatchdogUSec)" = 30s ] || exit 1
    fed=$(shown WatchdogTimestampMonotonic)
    within 12 "[ \$(shown WatchdogTimestampMonotonic) -gt $fed ]"'

# From here on with options of its owner, which an upgrade brings into force: a shorter watchdog, and
# JSON lines.
mkdir -p "/etc/systemd/system/$unit.d"
cat >"/etc/systemd/system/$unit.d/own.conf" <<'DROPIN'
[Service]
WatchdogSec=4s
Environment=MSYNC_TRACE_JSON=/var/log/msync-trace/records.jsonl
DROPIN
between "upgraded between failure and msync: one incident" '
    before=$(main); dpkg -i /opt/booted/package.deb && [ "$(main)" != "$before" ]'
try "the drop-in of its owner is taken" '
    [ "$(shown WatchdogUSec)" = 4s ] && within 5 "[ -s /var/log/msync-trace/records.jsonl ]"'
try "reload opens its files anew" '
    before=$(main); log=/var/log/msync-trace/records.jsonl
    mv "$log" "$log.1" && systemctl reload "$unit" && within 5 "[ -e $log ]" &&
        active && [ "$(main)" = "$before" ]'
between "one that hangs is killed by the watchdog and started again: one incident" '
    before=$(main); restarts=$(shown NRestarts); kill -STOP "$before" &&
        within 60 "active && [ \$(shown NRestarts) -gt $restarts ]" && [ "$(main)" != "$before" ] &&
        journalctl -q -b -o cat _PID=1 "UNIT=$unit" | grep -qi "watchdog timeout"'

echo "INFO memory: $(cat "/sys/fs/cgroup$(shown ControlGroup)/memory.peak") bytes at most," \
    "$(sed -n 's/^VmRSS:[ \t]*//p' "/proc/$(main)/status") resident"
try "it stayed below its limit of memory all the time" '
    dmesg | grep -i "out of memory"; ! dmesg | grep -qi "out of memory"'
rm -r "/etc/systemd/system/$unit.d"
try "purging while it runs" '
    before=$(main) && active && dpkg --purge msync-trace && [ ! -e "/proc/$before" ]'
# Not the journal, which is the machine's, and not dpkg's own log.
nothing_is_left() {
    ls -d "$pins" 2>/dev/null && return 1
    left=$(find / -xdev \( -path /opt/booted -o -path /var/lib/dpkg -o -path /var/log/dpkg.log \) -prune \
        -o -name "*msync-trace*" -print; find /run -path /run/systemd -prune -o -name "*msync-trace*" -print)
    echo "left: $left"; [ -z "$left" ] && ! systemctl cat "$unit" 2>/dev/null
}
try "nothing is left behind" nothing_is_left

# The package for Fedora and others, whose scripts talk to systemd on their own. Debian's rpm knows of no
# installed package, so that it must not look for systemd. Presets decide there about the service; metrics are
# not listened for even where all is enabled.
mkdir -p /etc/systemd/system-preset
printf "disable %s\nenable *\n" "$unit" >/etc/systemd/system-preset/99-default.preset
try "rpm: the package is installed, and not started unasked" '
    rpm -i --nodeps /opt/booted/package.rpm && ! active && ! systemctl is-enabled "$unit" &&
        ! systemctl is-enabled msync-trace.socket'
try "rpm: it is started and enabled" 'systemctl enable --now "$unit" && active && systemctl is-enabled "$unit"'
between "rpm: upgraded between failure and msync: one incident" '
    before=$(main); rpm -U --force --nodeps /opt/booted/package.rpm && [ "$(main)" != "$before" ]'
try "rpm: removed while it runs" '
    before=$(main) && active && rpm -e msync-trace && [ ! -e "/proc/$before" ] &&
        [ -s /var/lib/msync-trace/store.db ] && rm -r /var/lib/msync-trace /var/log/msync-trace'
try "rpm: nothing else is left behind" nothing_is_left
finish

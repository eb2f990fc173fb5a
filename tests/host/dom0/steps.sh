# SPDX-License-Identifier: LGPL-2.1-or-later
# What the driver can ask dom0 to do. step_NAME's exit status goes back to it.

guest_config=/etc/xen/guest.cfg
host_options=/etc/xen/vicover.conf
dumps=/var/lib/xen/dump

# Every line of xl's log for the guest becomes an event the moment it is written, and
# so does what libvicover tells, without waiting for whoever listens.
step_follow_log() {
    log-events /var/log/xen/xl-guest.log >&3 &
    echo 512 > /proc/sys/net/unix/max_dgram_qlen
    vicover-events /run/vicover.events >&3 &
}

# What the guest prints; the file outlives a domain, of whatever number.
step_follow_console() {
    log-events /var/log/xen/console/guest-guest.log console >&3 &
}

# next_story NAME DISK: of the guest of another story that this host is for, the
# configuration, and a disk that nobody has written to.
step_next_story() {
    cp "/etc/xen/guests/$1.cfg" "$guest_config" &&
    VICOVER_OPTIONS=$(cat "/etc/xen/guests/$1.options") &&
    disk=$(disk "$2") &&
    ln -sfn "$disk" /dev/vhost-guest
}

# end_story NAME: what is left of a story is its files, in a directory of its own.
step_end_story() {
    # In a file: a command substitution has no jobs.
    jobs -p > /tmp/jobs
    # shellcheck disable=SC2046
    kill $(cat /tmp/jobs) 2> /dev/null
    wait
    watch_pid=
    # Those of a crash, or of a standby, may be gone by then with their guest.
    for domid in $(xl list | awk 'NR > 1 && $2 != 0 { print $2 }'); do
        xl destroy "$domid" 3>&- 2> /dev/null
    done
    while [ "$(xl list | wc -l)" -ne 2 ] || pgrep -x xl > /dev/null; do
        sleep 0.2
    done
    script=/etc/xen/scripts/vif-bridge
    [ ! -e $script.good ] || mv $script.good $script
    rm -rf "$host_options" /run/vicover /run/vicover.events /run/held /run/interface /tmp/dump /out/disks
    story=/out/stories/$1
    mkdir -p "$story" &&
    find /out -maxdepth 1 -type f -exec mv {} "$story" \; &&
    cp "$guest_config" "$story" &&
    find /out/xen -name '*guest*' -exec mv {} "$story" \; &&
    { [ ! -d /out/lib/dump ] || mv /out/lib/dump "$story"; }
}

# Creating the guest, as an operator would; xl's daemon stays behind.
step_create() {
    create "$guest_config"
}

# With other vicover options than its own.
step_create_with() {
    sed '/^vicover/d' "$guest_config" > /tmp/other.cfg
    echo "vicover = \"$1\"" >> /tmp/other.cfg
    create /tmp/other.cfg
}

# The options of all guests that say nothing else.
step_host_options() {
    printf '%s\n' "$@" > "$host_options"
}

# The library's lines for debugging are in its log, too.
create() {
    xl -v create "$1" > /out/xl-create.log 2>&1 3>&-
    status=$?
    event create "{\"status\":$status,\"free_mib\":$(free_mib),\"output\":$(
        json_string < /out/xl-create.log)}"
}

# The example toolstack in xl's place, with a log of the same name.
step_toolstack() {
    xl create -n "$guest_config" > /tmp/guest.json 3>&- || return
    {
        toolstack --verbose /tmp/guest.json ${VICOVER_OPTIONS:+"$VICOVER_OPTIONS"} \
            >> /var/log/xen/xl-guest.log 2>&1 < /dev/null 3>&-
        event toolstack_ended "{\"status\":$?}"
    } &
}

step_destroy() {
    xl destroy guest 3>&-
}

step_destroy_crashed() {
    xl destroy "guest-crashed-$1" 3>&-
}

# What the shipped service does, until dom0's end.
step_resumer() {
    xl vicover-resume -w > /out/xl-resume.log 2>&1 3>&- &
}

# kill_handler MS: so long after a crash's journal appears, whoever handles it is killed.
step_kill_handler() {
    kill-handler "$1" >&3 &
}

# no_journal SECONDS: until no crash is being handled.
step_no_journal() {
    end=$(($(cut -d. -f1 /proc/uptime) + $1))
    while [ "$(cut -d. -f1 /proc/uptime)" -lt "$end" ]; do
        [ -n "$(find /run/vicover -name '*.journal')" ] || return 0
        sleep 0.2
    done
    cat /run/vicover/*.journal
    return 1
}

# Until dom0's end.
step_load_fpu() {
    load-fpu 3>&- &
}

# boot MIB MOST VCPUS: the guest with so much memory, of that at its start MIB behind
# it, as vicover starts a recovery domain: Linux is told not to give the rest back.
step_boot() {
    sed "s/^memory = .*/memory = $1/; s/^vcpus = .*/vcpus = $3/" "$guest_config" > /tmp/boot.cfg
    echo "maxmem = $2" >> /tmp/boot.cfg
    xl create -p /tmp/boot.cfg > /out/xl-create.log 2>&1 3>&- || return
    domain=/local/domain/$(xl domid guest 3>&-)
    xenstore-write "$domain/memory/target" "$(xenstore-read "$domain/memory/static-max")" &&
    xl unpause guest 3>&-
}

# The script of the next interface that comes waits, and once it is released or libxl
# has ended it, the one after that does not.
step_hold_interface() {
    script=/etc/xen/scripts/vif-bridge
    if [ -e $script.good ]; then
        rmdir /run/held
        return
    fi
    mkfifo /run/interface &&
    mv $script $script.good || return
    cat > $script << END
#!/bin/sh
if [ "\$1" = online ] && mkdir /run/held 2>/dev/null; then
    cat /run/interface
fi
exec $script.good "\$@"
END
    chmod 755 $script
}

# It waits no more.
step_release_interface() {
    : > /run/interface
}

# step_hotplugged KIND/DOMID/DEVID: whether the script of a device says it has done
# its work.
step_hotplugged() {
    [ "$(xenstore-read "/local/domain/0/backend/$1/hotplug-status")" = connected ]
}

step_remove_library() {
    rm -f /usr/lib/x86_64-linux-gnu/libvicover.so* /usr/lib/libvicover.so* \
        /usr/local/lib/libvicover.so*
}

# Before the guest exists: its domid and everything after are seen from birth.
step_watch() {
    watch --csv /out/watch.csv >&3 &
    watch_pid=$!
}

step_client() {
    client run "$GUEST_ADDRESS" "$GUEST_PORT" >&3 &
    client_pid=$!
}

step_database_client() {
    database-client "$GUEST_ADDRESS" 5432 >&3 &
    client_pid=$!
}

# request SECONDS WORD...: one request to the service, and its answer.
step_request() {
    answer=$(client request "$GUEST_ADDRESS" "$GUEST_PORT" "$@" 3>&-)
    status=$?
    event answer "{\"line\":$(echo "$answer" | json_string)}"
    return $status
}

# crash PROCESSOR: the service does not answer this one: the kernel panics there.
step_crash() {
    event crash_requested
    client request "$GUEST_ADDRESS" "$GUEST_PORT" 1 crash "$1" > /dev/null 2>&1 3>&-
    return 0
}

# What xl's own users crash a guest with that has no network.
step_sysrq() {
    xl sysrq guest "$1" 3>&-
}

# The guest's disk, and a second one that the guest has only to read, as files.
step_file_disks() {
    mkdir /out/disks &&
    cp --sparse=always /dev/vhost-guest /out/disks/guest.img &&
    cp --sparse=always "$(disk files)" /out/disks/second.img
}

# disk_file FORMAT: the guest's disk as a file.
step_disk_file() {
    mkdir /out/disks || return
    case $1 in
    raw) cp --sparse=always /dev/vhost-guest /out/disks/guest ;;
    *) qemu-img convert -f raw -O "$1" /dev/vhost-guest /out/disks/guest 3>&- ;;
    esac
}

# give_back MIB: the guest gives memory back until it has so much.
step_give_back() {
    xl mem-set guest "$1" 3>&- || return
    until [ "$(xl list guest 3>&- | awk 'NR == 2 {print $3}')" -le "$1" ]; do
        sleep 0.2
    done
}

step_disk_modes() {
    for kind in vbd qdisk; do
        for backend in $(xenstore-list "/local/domain/0/backend/$kind/$1" 2> /dev/null); do
            path=/local/domain/0/backend/$kind/$1/$backend
            echo "$(xenstore-read "$path/dev") $(xenstore-read "$path/mode")"
        done
    done > /tmp/disk-modes
    event disk_modes "{\"list\":$(json_lines < /tmp/disk-modes)}"
}

step_verify() {
    kill -TERM "$client_pid" && wait "$client_pid"
}

# check ACKED: whether what a client was told before dom0 began is there.
step_check() {
    client check "$GUEST_ADDRESS" "$GUEST_PORT" "$1" >&3
}

step_report() {
    kill -USR1 "$watch_pid"
}

# What the kernel counts of the guest's disk and of the dump's (its
# Documentation/block/stat.rst).
step_disks() {
    event disks "{\"guest\":$(disk_stat guest),\"out\":$(disk_stat out)}"
}

disk_stat() {
    device=$(disk "$1") || return
    # shellcheck disable=SC2046
    set -- $(cat "/sys/block/${device##*/}/stat")
    echo "[$*]" | tr ' ' ,
}

# Nodes and backends that belong to no living domain.
step_leftovers() {
    living=$(xl list | awk 'NR > 1 { print $2 }')
    for domid in $(xenstore-list /local/domain) ; do
        is_living "$domid" || xenstore-ls -f "/local/domain/$domid"
    done > /tmp/leftovers
    for domid in $(xenstore-list /libxl); do
        is_living "$domid" || xenstore-ls -f "/libxl/$domid"
    done >> /tmp/leftovers
    for kind in $(xenstore-list /local/domain/0/backend); do
        for domid in $(xenstore-list "/local/domain/0/backend/$kind"); do
            is_living "$domid" || xenstore-ls -f "/local/domain/0/backend/$kind/$domid"
        done
    done >> /tmp/leftovers
    for vm in $(xenstore-list /vm); do
        for domid in $living; do
            [ "$(xenstore-read "/local/domain/$domid/vm" 2>/dev/null)" != "/vm/$vm" ] || continue 2
        done
        xenstore-ls -f "/vm/$vm"
    done >> /tmp/leftovers
    for device in /sys/bus/xen-backend/devices/*; do
        domid=${device##*/}
        domid=${domid#*-}
        [ ! -e "$device" ] || is_living "${domid%%-*}" || echo "${device##*/}"
    done > /tmp/backends
    event leftovers "{\"xenstore\":$(json_lines < /tmp/leftovers),\"backends\":$(
        json_lines < /tmp/backends)}"
}

is_living() {
    for one in $living; do
        [ "$one" != "$1" ] || return 0
    done
    return 1
}

# The dumps are without what is beside them.
step_list() {
    event domains "{\"list\":$(xl list -v 2>&1 | json_lines),\"dumps\":$(
        { [ ! -d "$dumps" ] || find "$dumps" -type f ! -name '*.json' ! -name '*.txt' \
            ! -name '*.dmesg' ! -name '*.svg' -printf '%f %s\n'; } | json_lines)}"
}

# tool WORD...: what the program vicover prints.
step_tool() {
    vicover "$@" > /tmp/tool 2>&1 3>&-
    status=$?
    event tool "{\"status\":$status,\"lines\":$(json_lines < /tmp/tool)}"
    return $status
}

# The records of crashes that are handled to their end.
step_records() {
    step_no_journal 60 || return
    list=
    for record in "$dumps"/*.json; do
        list=${list:+$list,}$(tr -d '\n' < "$record")
    done
    event records "{\"list\":[$list]}"
}

# For xl's own dumps, and for files that an operator names: neither makes it.
step_make_dump_directory() {
    mkdir "$dumps"
}

step_mem_set() {
    xl mem-set guest "$1" 3>&-
}

# wait_memory DOMID MIB SECONDS: until xl's list shows it, give or take 2 MiB.
step_wait_memory() {
    end=$(($(cut -d. -f1 /proc/uptime) + $3))
    while [ "$(cut -d. -f1 /proc/uptime)" -lt "$end" ]; do
        now=$(xl list "$1" 3>&- | awk 'NR == 2 { print $3 }')
        [ "$now" -lt $(($2 - 2)) ] || [ "$now" -gt $(($2 + 2)) ] || return 0
        sleep 0.5
    done
    return 1
}

# What is still to be written of so large a file would be written while the guest is
# restored, and its hotplug scripts wait for the disk; libxl ends them after 40 s.
step_save() {
    xl save guest /out/guest.save > /out/xl-save.log 2>&1 3>&- && sync -f /out
}

# The restored guest is watched by a daemon of its own, with the same log.
step_restore() {
    xl restore /out/guest.save > /out/xl-restore.log 2>&1 3>&- || return
    event restored "{\"domid\":$(xl domid guest 3>&-)}"
    rm /out/guest.save
}

# timed WORD...: an xl command, and how long it took.
step_timed() {
    read -r begin _ < /proc/uptime
    xl "$@" > /out/xl-timed.log 2>&1 3>&-
    status=$?
    read -r end _ < /proc/uptime
    event timed "{\"status\":$status,\"seconds\":$(awk "BEGIN { print $end - $begin }"),\"output\":$(
        json_string < /out/xl-timed.log)}"
    return $status
}

# vicover_dump WORD...: begins xl vicover-dump; each line it writes is an event.
# A shell's background jobs ignore SIGINT, those of a terminal do not.
step_vicover_dump() {
    rm -f /tmp/dump
    mkfifo /tmp/dump
    env --default-signal=INT xl -v vicover-dump "$@" > /tmp/dump 2>&1 3>&- &
    dump_pid=$!
    while read -r line; do
        event dump "{\"line\":$(printf '%s\n' "$line" | json_string)}"
    done < /tmp/dump &
}

step_interrupt_dump() {
    kill -INT "$dump_pid"
}

step_wait_dump() {
    wait "$dump_pid"
    event dump_over "{\"status\":$?}"
}

# How the guest stands in xl's list.
step_state() {
    event state "$(xl list guest 3>&- | awk 'NR == 2 {
        printf "{\"domid\":%s,\"state\":\"%s\"}", $2, $5 }')"
}

# All to the out disk, so that it can be read from outside.
step_finish() {
    [ -z "$watch_pid" ] || { kill -TERM "$watch_pid" && wait "$watch_pid"; }
    xl dmesg > /out/xen/xl-dmesg.log 3>&-
    dmesg > /out/xen/dom0-dmesg.log
    xenstore-ls -f > /out/xen/xenstore.log
    xl info > /out/xen/xl-info.log 3>&-
    umount /var/lib/xen
    [ ! -d /out/lib/dump ] || mv /out/lib/dump /out/dump
    umount /out/disks 2> /dev/null
    rm -rf /out/disks /out/images.img
    sync -f /out
    event finished
    busybox poweroff -f
}

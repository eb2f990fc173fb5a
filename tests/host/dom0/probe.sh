# SPDX-License-Identifier: LGPL-2.1-or-later
# Guests that run the kernel of our own: see probe/probe.c.

# Beside its memory a guest takes 4 KiB a MiB for tables, and a few MiB.
probe_extra_mib=8
# Of a guest to search with.
least_search_mib=16

# probe_config NAME MIB KERNEL WORD: the processor is the other guests'.
probe_config() {
    grep -E '^(type|cpus|tsc_mode) = ' "$guest_config"
    echo "name = \"$1\""
    echo "memory = $2"
    echo "kernel = \"/usr/lib/vhost/bin/$3\""
    echo "cmdline = \"$4\""
}

# What neither a domain has nor is claimed for one.
spare_mib() {
    xl info 3>&- | awk '$1 == "free_memory" { free = $3 }
        $1 == "outstanding_claims" { claimed = $3 }
        END { print free - claimed }'
}

# Until search_no_more, guests that take what memory there is look for the canary in it,
# one after the other.
step_search() {
    mkdir /run/searching
    while [ -d /run/searching ]; do
        search_once
    done &
    search_pid=$!
}

step_search_no_more() {
    rmdir /run/searching && wait "$search_pid"
}

step_search_once() {
    search_once
}

search_once() {
    mib=$((($(spare_mib) - probe_extra_mib) * 63 / 64))
    if [ "$mib" -lt $least_search_mib ]; then
        sleep 0.2
        return
    fi
    console=/var/log/xen/console/guest-search.log
    rm -f $console
    probe_config search $mib probe search > /tmp/search.cfg
    # Until it has ended. Another one may have been faster to take the memory.
    xl create -F /tmp/search.cfg > /tmp/search.out 2>&1 3>&-
    event searched "$(sed -n 's/^probe: searched \([0-9]*\) pages, \([0-9]*\) with the canary, \([0-9]*\) not zero.*/{"pages":\1,"canaries":\2,"filled":\3}/p' $console | grep . ||
        echo "{\"pages\":0,\"canaries\":0,\"filled\":0,\"said\":$(tail -n 3 /tmp/search.out | json_string)}")"
}

# keep MIB: a guest that knows what its memory holds; what it says are events.
step_keep() {
    probe_config keep "$1" probe keep > /tmp/keep.cfg
    log-events /var/log/xen/console/guest-keep.log keep >&3 &
    xl create /tmp/keep.cfg > /tmp/keep.out 2>&1 3>&-
}

# create_posing NAME MIB: the guest is one that will crash as NAME, of hostile_guests.rs.
step_create_posing() {
    gzip -dc "/usr/lib/vhost/hostile/$1.gz" > /out/posing &&
    {
        probe_config guest "$2" probe-high pose
        echo 'ramdisk = "/out/posing"'
        echo 'on_crash = "vicover"'
        echo "vicover = \"$VICOVER_OPTIONS\""
    } > /tmp/posing.cfg &&
    create /tmp/posing.cfg &&
    xl_pid=$(pgrep -f 'xl -v create /tmp/posing.cfg')
}

# Whether the xl that created the guest is there.
step_xl_lives() {
    kill -0 "$xl_pid"
}

# press_key NAME: on the console of a guest.
step_press_key() {
    printf x > "$(xenstore-read "/local/domain/$(xl domid "$1" 3>&-)/console/tty")"
}

# no_domain NAME SECONDS: until it has gone.
step_no_domain() {
    end=$(($(cut -d. -f1 /proc/uptime) + $2))
    while [ "$(cut -d. -f1 /proc/uptime)" -lt "$end" ]; do
        xl domid "$1" > /dev/null 2>&1 3>&- || return 0
        sleep 0.2
    done
    return 1
}

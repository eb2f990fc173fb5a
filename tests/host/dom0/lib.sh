# SPDX-License-Identifier: LGPL-2.1-or-later
# Helpers of dom0's init and steps.

# event NAME JSON: one line on the event port (descriptor 3), stamped with the
# time since boot, which is CLOCK_MONOTONIC's (nothing here ever suspends).
event() {
    read -r uptime _ < /proc/uptime
    printf 'EVT %s %s %s\n' "$uptime" "$1" "${2:-{\}}" >&3
}

give_up() {
    echo "dom0: $* failed" > /dev/hvc0
    busybox poweroff -f
}

# Standard input as one JSON string.
json_string() {
    awk 'BEGIN { printf "\"" }
        { gsub(/\\/, "\\\\"); gsub(/"/, "\\\""); gsub(/\t/, "\\t")
          gsub(/[\001-\037]/, ""); printf "%s%s", (NR > 1 ? "\\n" : ""), $0 }
        END { printf "\"" }'
}

# Standard input's lines as a JSON array of strings.
json_lines() {
    awk 'BEGIN { printf "[" }
        { gsub(/\\/, "\\\\"); gsub(/"/, "\\\""); gsub(/[\001-\037]/, "")
          printf "%s\"%s\"", (NR > 1 ? "," : ""), $0 }
        END { printf "]" }'
}

free_mib() { xl info free_memory; }

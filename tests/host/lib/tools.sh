# SPDX-License-Identifier: LGPL-2.1-or-later
# tools: our C programs that run in dom0.

tools_sources=(lib/tools.sh lib/sdk.sh tools/client.c tools/watch.c tools/log-events.c
    tools/vicover-events.c tools/load-fpu.c tools/kill-handler.c tools/owed.h
    tools/event.h)

make_tools() {
    mkdir "$work/bin"
    step "client" sdk_cc -o "$work/bin/client" "$here/tools/client.c"
    step "watch" sdk_cc -o "$work/bin/watch" "$here/tools/watch.c" \
        -lxenctrl
    step "log-events" sdk_cc -o "$work/bin/log-events" "$here/tools/log-events.c"
    step "vicover-events" sdk_cc -o "$work/bin/vicover-events" "$here/tools/vicover-events.c"
    step "load-fpu" sdk_cc -o "$work/bin/load-fpu" "$here/tools/load-fpu.c"
    step "kill-handler" sdk_cc -o "$work/bin/kill-handler" "$here/tools/kill-handler.c"
}

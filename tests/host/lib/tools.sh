# SPDX-License-Identifier: LGPL-2.1-or-later
# tools: our C programs that run in dom0, and the kernel of our own that its guests run.

tools_sources=(lib/tools.sh lib/sdk.sh tools/client.c tools/watch.c tools/log-events.c
    tools/vicover-events.c tools/load-fpu.c tools/kill-handler.c tools/owed.h
    tools/event.h probe/entry.S probe/link.ld probe/pose.S probe/pose.c probe/pose.h
    probe/probe.c probe/xen.c probe/xen.h)

# Freestanding, 32 bits: nothing of a C library, for whose headers `-m32` may lack some.
probe_flags=(-m32 -march=i686 -ffreestanding -fno-pic -fno-stack-protector
    -fcf-protection=none -fno-delete-null-pointer-checks -mgeneral-regs-only
    -D__XEN_INTERFACE_VERSION__=__XEN_LATEST_INTERFACE_VERSION__)

make_tools() {
    mkdir "$work/bin"
    step "client" sdk_cc -o "$work/bin/client" "$here/tools/client.c"
    step "watch" sdk_cc -o "$work/bin/watch" "$here/tools/watch.c" \
        -lxenctrl
    step "log-events" sdk_cc -o "$work/bin/log-events" "$here/tools/log-events.c"
    step "vicover-events" sdk_cc -o "$work/bin/vicover-events" "$here/tools/vicover-events.c"
    step "load-fpu" sdk_cc -o "$work/bin/load-fpu" "$here/tools/load-fpu.c"
    step "kill-handler" sdk_cc -o "$work/bin/kill-handler" "$here/tools/kill-handler.c"
    mkdir "$work/probe"
    step "probe" compile_probe
    # Its own memory is out of the way of what it becomes when it poses.
    step "probe, low" link_probe probe 0x100000
    step "probe, high" link_probe probe-high 0x4000000
    rm -r "$work/probe"
}

compile_probe() {
    local file
    for file in "$here"/probe/*.[cS]; do
        sdk_cc "${probe_flags[@]}" -c -o "$work/probe/${file##*/}.o" "$file"
    done
}

# link_probe NAME ADDRESS
link_probe() {
    ld -m elf_i386 --defsym=load="$2" -T "$here/probe/link.ld" -o "$work/bin/$1" \
        "$work"/probe/*.o
}

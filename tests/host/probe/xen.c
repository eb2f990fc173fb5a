/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "xen.h"

#include <stdarg.h>

#include <xen/event_channel.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>
#include <xen/io/console.h>
#include <xen/memory.h>
#include <xen/sched.h>

/* Where there is neither memory nor anything else of a PVH guest (libxl's layout). */
#define SHARED_INFO_FRAME 0xfd000

static volatile struct shared_info *const shared =
    (volatile struct shared_info *)((uint32_t)SHARED_INFO_FRAME << 12);
static volatile struct xencons_interface *ring;
static evtchn_port_t port;

static int hypercall(unsigned number, unsigned command, void *argument)
{
    int result;

    asm volatile("vmmcall" : "=a" (result)
                 : "a" (number), "b" (command), "c" (argument) : "memory");
    return result;
}

static uint64_t parameter(uint32_t index)
{
    struct xen_hvm_param asked = { .domid = DOMID_SELF, .index = index };

    hypercall(__HYPERVISOR_hvm_op, HVMOP_get_param, &asked);
    return asked.value;
}

void console_open(void)
{
    struct xen_add_to_physmap where = {
        .domid = DOMID_SELF, .space = XENMAPSPACE_shared_info, .gpfn = SHARED_INFO_FRAME,
    };

    hypercall(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, &where);
    port = parameter(HVM_PARAM_CONSOLE_EVTCHN);
    ring = (void *)(uint32_t)(parameter(HVM_PARAM_CONSOLE_PFN) << 12);
}

static void tell(void)
{
    struct evtchn_send send = { .port = port };

    asm volatile("mfence" ::: "memory");
    hypercall(__HYPERVISOR_event_channel_op, EVTCHNOP_send, &send);
}

/* Until the console's other end has done something. */
static void await_console(void)
{
    struct sched_poll poll = { .nr_ports = 1 };
    unsigned bits = 8 * sizeof shared->evtchn_pending[0];

    set_xen_guest_handle(poll.ports, &port);
    hypercall(__HYPERVISOR_sched_op, SCHEDOP_poll, &poll);
    __atomic_fetch_and(&shared->evtchn_pending[port / bits], ~(1UL << port % bits),
                       __ATOMIC_SEQ_CST);
}

static void put(char c)
{
    while (ring->out_prod - ring->out_cons == sizeof ring->out)
        await_console();
    ring->out[MASK_XENCONS_IDX(ring->out_prod, ring->out)] = c;
    asm volatile("mfence" ::: "memory");
    ring->out_prod++;
}

static void put_number(unsigned number)
{
    if (number >= 10)
        put_number(number / 10);
    put('0' + number % 10);
}

static void put_text(const char *text)
{
    while (*text)
        put(*text++);
}

void say(const char *format, ...)
{
    va_list values;

    va_start(values, format);
    for (; *format; format++) {
        if (*format != '%')
            put(*format);
        else if (*++format == 'u')
            put_number(va_arg(values, unsigned));
        else
            put_text(va_arg(values, const char *));
    }
    va_end(values);
    tell();
}

void await_key(void)
{
    while (ring->in_cons == ring->in_prod)
        await_console();
    ring->in_cons = ring->in_prod;
    tell();
}

void end(unsigned reason)
{
    struct sched_shutdown shutdown = { .reason = reason };

    while (ring->out_cons != ring->out_prod)
        await_console();
    hypercall(__HYPERVISOR_sched_op, SCHEDOP_shutdown, &shutdown);
}

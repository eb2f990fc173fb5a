/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What our own kernel asks of Xen: a console, and an end. 32 bits, no paging, so
 * addresses are physical ones. The emulated processor is AMD's, hence VMMCALL.
 */
#ifndef PROBE_XEN_H
#define PROBE_XEN_H

#include <stdint.h>

#include <xen/xen.h>
#include <xen/arch-x86/hvm/start_info.h>

/* Finds the console; nothing can be said before. */
void console_open(void);

/* printf(3)'s %s and %u, and no more. */
__attribute__((format(printf, 1, 2)))
void say(const char *format, ...);

/* Waits until something is typed, and forgets it. */
void await_key(void);

/* Ends the guest for this reason (xen/sched.h) when all that was said is read. */
void end(unsigned reason);

#endif

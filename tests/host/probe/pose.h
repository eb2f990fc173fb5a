/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PROBE_POSE_H
#define PROBE_POSE_H

#include "xen.h"

/* Becomes the guest whose memory the first module is, and crashes. */
void pose(const struct hvm_start_info *info);

/* pose.S: the code that runs last, wherever it is put. */
extern const char last_code[], last_code_end[];

/*
 * pose.S: into 64 bits with `tables`, in which the code at `last` is mapped, and to that,
 * which has the processor use the page tables at `cr3` and ends the guest as crashed.
 */
void leave(uint64_t last, uint32_t tables, uint32_t cr3);

#endif

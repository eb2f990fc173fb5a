/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest that crashes with memory and page tables of somebody's choice. The module is
 * a header, the numbers of page frames, and from the next page boundary on what is in
 * these. tests/guest_hostile.rs writes such modules.
 */
#include "pose.h"

#include <xen/sched.h>

#define PAGE 4096u
#define PRESENT_WRITABLE 3u
#define LARGE 0x80u
#define LARGE_PAGE (2u << 20)

struct header {
    uint64_t cr3;
    /* A page that is mapped, where code may be put: physical and virtual address. */
    uint64_t code_at, code_mapped;
    uint64_t frames;
};

static uint64_t topmost[512] __attribute__((aligned(4096)));
static uint64_t upper[512] __attribute__((aligned(4096)));
static uint64_t middle[512] __attribute__((aligned(4096)));

static void copy(void *to, const void *from, uint32_t size)
{
    asm volatile("rep movsb" : "+D" (to), "+S" (from), "+c" (size) :: "memory");
}

/* Page tables for the way there: the first GiB as it is, and the guest's kernel. */
static void make_tables(const struct header *header)
{
    const uint64_t *theirs = (const uint64_t *)(uint32_t)header->cr3;
    unsigned i;

    topmost[0] = (uint32_t)upper | PRESENT_WRITABLE;
    topmost[511] = theirs[511];
    upper[0] = (uint32_t)middle | PRESENT_WRITABLE;
    for (i = 0; i < 512; i++)
        middle[i] = (uint64_t)i * LARGE_PAGE | LARGE | PRESENT_WRITABLE;
}

void pose(const struct hvm_start_info *info)
{
    const struct hvm_modlist_entry *module = (void *)(uint32_t)info->modlist_paddr;
    const struct header *header;
    const uint64_t *frame;
    const char *page;
    uint32_t i;

    if (info->nr_modules < 1) {
        say("probe: there is nothing to pose as\n");
        end(SHUTDOWN_poweroff);
    }
    header = (void *)(uint32_t)module->paddr;
    frame = (const uint64_t *)(header + 1);
    page = (const char *)(((uint32_t)(frame + header->frames) + PAGE - 1) & ~(PAGE - 1));
    say("probe: ready to pose, %u pages\n", (unsigned)header->frames);
    await_key();
    for (i = 0; i < header->frames; i++, page += PAGE)
        copy((void *)(uint32_t)(frame[i] * PAGE), page, PAGE);
    copy((void *)(uint32_t)header->code_at, last_code, last_code_end - last_code);
    make_tables(header);
    leave(header->code_mapped, (uint32_t)topmost, header->cr3);
}

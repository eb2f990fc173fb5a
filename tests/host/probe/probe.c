/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A kernel of our own, for guests that are nothing but their memory. It has no paging,
 * so it sees each page as Xen gave it. Its command line says what it does:
 *
 *   search    looks at all of its memory for what the service's "load" fills pages with
 *             (guest/service.c), tells how much of that it has, and ends
 *   keep      fills its memory, and whenever a key is pressed looks whether all is there
 *   pose      waits for a key, then crashes as another guest: see pose.c
 */
#include <stdbool.h>
#include <stddef.h>

#include "pose.h"
#include "xen.h"

#include <xen/sched.h>

#define PAGE 4096u
#define MOST_REGIONS 16
#define KEPT 0x70656b2e65626f72ull
/* The first bytes of such a page, and what every other one is full of. */
#define HEAD 0x207265766f636976ull
#define FILL 0x2e65676170202020ull

extern const char image_start[], image_end[];

struct region {
    uint32_t first, end; /* page frames */
};

static struct region ram[MOST_REGIONS];
static unsigned regions;

/* What lies below 4 GiB: above it nothing can be addressed. */
static void find_ram(const struct hvm_start_info *info)
{
    const struct hvm_memmap_table_entry *entry = (void *)(uint32_t)info->memmap_paddr;
    uint32_t i;

    for (i = 0; i < info->memmap_entries && regions < MOST_REGIONS; i++, entry++) {
        uint64_t first = (entry->addr + PAGE - 1) / PAGE;
        uint64_t end = (entry->addr + entry->size) / PAGE;

        if (entry->type != XEN_HVM_MEMMAP_TYPE_RAM || first >= 1 << 20)
            continue;
        ram[regions++] = (struct region){ first, end < 1 << 20 ? end : 1 << 20 };
    }
}

static void *page_at(uint32_t frame)
{
    return (void *)(frame * PAGE);
}

struct found {
    unsigned pages, canaries, filled;
};

static void search_page(const volatile uint64_t *word, struct found *found)
{
    bool canary = false, filled = false;
    unsigned i;

    for (i = 0; i < PAGE / sizeof *word; i++) {
        filled |= word[i] != 0;
        canary |= word[i] == HEAD || word[i] == FILL;
    }
    found->pages++;
    found->canaries += canary;
    found->filled += filled;
}

static void search(void)
{
    struct found found = { 0 };
    uint32_t frame;
    unsigned i;

    for (i = 0; i < regions; i++)
        for (frame = ram[i].first; frame < ram[i].end; frame++)
            search_page(page_at(frame), &found);
    say("probe: searched %u pages, %u with the canary, %u not zero\n", found.pages,
        found.canaries, found.filled);
    end(SHUTDOWN_poweroff);
}

static bool is_ours(uint32_t frame)
{
    return frame >= (uint32_t)image_start / PAGE && frame <= (uint32_t)image_end / PAGE;
}

/* Fills every page that is not ours, or counts how many have changed since. */
static unsigned each_kept_page(bool fill, unsigned *changed)
{
    unsigned i, j, pages = 0;
    uint32_t frame;

    for (i = 0; i < regions; i++) {
        for (frame = ram[i].first; frame < ram[i].end; frame++) {
            volatile uint64_t *word = page_at(frame);
            bool differs = false;

            if (is_ours(frame))
                continue;
            pages++;
            for (j = 0; j < PAGE / sizeof *word; j++) {
                if (fill)
                    word[j] = KEPT ^ frame;
                differs |= word[j] != (KEPT ^ frame);
            }
            *changed += differs;
        }
    }
    return pages;
}

static void keep(void)
{
    bool fill = true;

    for (;; fill = false) {
        unsigned changed = 0, pages = each_kept_page(fill, &changed);

        say("probe: keeps %u pages, %u have changed\n", pages, changed);
        await_key();
    }
}

static bool is_asked(const char *line, const char *word)
{
    for (; *word; line++, word++)
        if (*line != *word)
            return false;
    return true;
}

void probe(const struct hvm_start_info *info)
{
    const char *line = (const char *)(uint32_t)info->cmdline_paddr;

    console_open();
    find_ram(info);
    if (is_asked(line, "search"))
        search();
    else if (is_asked(line, "keep"))
        keep();
    else if (is_asked(line, "pose"))
        pose(info);
    say("probe: what is %s?\n", line);
    end(SHUTDOWN_poweroff);
}

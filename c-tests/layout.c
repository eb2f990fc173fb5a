/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Programs compiled against version 0.1 rely on these places for ever. */
#include <assert.h>

#include "check.h"

#define AT(type, member, offset)                                               \
    _Static_assert(offsetof(struct type, member) == (offset),                  \
                   #type "." #member " has moved")

AT(vicover_options, struct_size, 0);
AT(vicover_options, spec, 8);
AT(vicover_options, name, 16);
AT(vicover_options, dump_dir, 24);
AT(vicover_options, log, 32);
AT(vicover_options, log_user, 40);
AT(vicover_options, flags, 48);
AT(vicover_options, sink_fd, 52);
AT(vicover_options, dump_file, 56);
AT(vicover_options, event, 64);
AT(vicover_options, event_user, 72);
AT(vicover_options, journal_dir, 80);
AT(vicover_options, conf_file, 88);
_Static_assert(sizeof(struct vicover_options) >= 96, "vicover_options shrank");

AT(vicover_event, struct_size, 0);
AT(vicover_event, level, 8);
AT(vicover_event, reserved, 12);
AT(vicover_event, elapsed_ms, 16);
AT(vicover_event, about, 24);
AT(vicover_event, event, 32);
AT(vicover_event, message, 40);
AT(vicover_event, record, 48);
_Static_assert(sizeof(struct vicover_event) >= 56, "vicover_event shrank");

AT(vicover_image, struct_size, 0);
AT(vicover_image, path, 8);
AT(vicover_image, memory_bytes, 16);
AT(vicover_image, vcpus, 24);
AT(vicover_image, reserved, 28);
_Static_assert(sizeof(struct vicover_image) >= 32, "vicover_image shrank");

AT(vicover_domain, struct_size, 0);
AT(vicover_domain, ctx, 8);
AT(vicover_domain, config, 16);
AT(vicover_domain, domid, 24);
AT(vicover_domain, reserved, 28);
_Static_assert(sizeof(struct vicover_domain) >= 32, "vicover_domain shrank");

AT(vicover_crash, struct_size, 0);
AT(vicover_crash, ctx, 8);
AT(vicover_crash, config, 16);
AT(vicover_crash, domid, 24);
AT(vicover_crash, flags, 28);
_Static_assert(sizeof(struct vicover_crash) >= 32, "vicover_crash shrank");

AT(vicover_interrupted, struct_size, 0);
AT(vicover_interrupted, domid, 8);
AT(vicover_interrupted, reserved, 12);
AT(vicover_interrupted, guest, 16);
AT(vicover_interrupted, journal, 272);
_Static_assert(sizeof(struct vicover_interrupted) >= 1296,
               "vicover_interrupted shrank");

AT(vicover_progress, struct_size, 0);
AT(vicover_progress, phase, 8);
AT(vicover_progress, outcome, 12);
AT(vicover_progress, status, 16);
AT(vicover_progress, recovery_domid, 20);
AT(vicover_progress, pages_total, 24);
AT(vicover_progress, pages_planned, 32);
AT(vicover_progress, pages_dumped, 40);
AT(vicover_progress, pages_released, 48);
AT(vicover_progress, dump_bytes, 56);
AT(vicover_progress, elapsed_ms, 64);
_Static_assert(sizeof(struct vicover_progress) >= 72, "vicover_progress shrank");

AT(vicover_verdict, struct_size, 0);
AT(vicover_verdict, state, 8);
AT(vicover_verdict, with_manifest, 12);
AT(vicover_verdict, wanted_pages, 16);
AT(vicover_verdict, stored_pages, 24);
AT(vicover_verdict, zero_pages, 32);
AT(vicover_verdict, lost_pages, 40);
AT(vicover_verdict, length, 48);
AT(vicover_verdict, reason, 56);
_Static_assert(sizeof(struct vicover_verdict) >= 216, "vicover_verdict shrank");

AT(vicover_preflight, struct_size, 0);
AT(vicover_preflight, dump_room, 8);
AT(vicover_preflight, declined, 16);
AT(vicover_preflight, no_dump, 528);
_Static_assert(sizeof(struct vicover_preflight) >= 1040,
               "vicover_preflight shrank");

int main(void)
{
    CHECK(vicover_abi_version() == VICOVER_ABI_VERSION);
    CHECK(strchr(vicover_version(), '.'));
    /* Xen 4 for long, or built without Xen. */
    CHECK(vicover_xen_version() >> 16 == 4 || vicover_xen_version() == 0);
    return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The pace of a running job is changed: pace DIRECTORY. At the first one the
 * dump would take hours. */
#include "check.h"

int main(int argc, char **argv)
{
    struct vicover_options options = {
        .struct_size = sizeof(options),
        .spec = "compress=none,dump_level=0,io=fixed:1K",
        .name = "pace",
        .dump_dir = argc > 1 ? argv[1] : ".",
    };
    struct vicover_image image = {
        .struct_size = sizeof(image),
        .memory_bytes = 32 << 20,
    };
    struct vicover_progress progress = { .struct_size = sizeof(progress) };
    vicover_job job;

    CHECK(vicover_dump_image(&options, &image, &job) == VICOVER_OK);
    REFUSED(vicover_set_io(job, "fast"), VICOVER_ERR_OPTION, "'io': bad value 'fast'");
    CHECK(vicover_set_io(job, "fixed:2K") == VICOVER_OK);
    REFUSED(vicover_wait(job, VICOVER_UNTIL_DONE, 100), VICOVER_ERR_TIMEOUT, "100 ms");
    CHECK(vicover_set_io(job, "adaptive") == VICOVER_OK);
    CHECK(vicover_wait(job, VICOVER_UNTIL_DONE, 60000) == VICOVER_OK);
    CHECK(vicover_poll(job, &progress) == VICOVER_OK);
    CHECK(progress.status == VICOVER_OK);
    CHECK(progress.pages_dumped == progress.pages_planned);
    CHECK(vicover_free(job) == VICOVER_OK);
    return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Dumps a synthetic guest: dump_image DIRECTORY. Prints the dump's path. */
#include "check.h"

enum { MEMORY_MIB = 32 };

static int lines;

static void log_line(void *user, vicover_level level, const char *message)
{
    (void)level;
    ++*(int *)user;
    fprintf(stderr, "%s\n", message);
}

int main(int argc, char **argv)
{
    struct vicover_options options = {
        .struct_size = sizeof(options),
        .spec = "compress=zlib,threads=2",
        .name = "synthetic",
        .dump_dir = argc > 1 ? argv[1] : ".",
        .log = log_line,
        .log_user = &lines,
    };
    struct vicover_image image = {
        .struct_size = sizeof(image),
        .memory_bytes = (uint64_t)MEMORY_MIB << 20,
        .vcpus = 2,
    };
    struct vicover_progress progress = { .struct_size = sizeof(progress) };
    char path[4096], error[512];
    vicover_job job;

    CHECK(vicover_dump_image(&options, &image, &job) == VICOVER_OK);
    CHECK(vicover_wait(job, VICOVER_UNTIL_DONE, VICOVER_FOREVER) == VICOVER_OK);
    CHECK(vicover_job_error(job, error, sizeof(error)) == VICOVER_OK);
    if (error[0]) {
        fprintf(stderr, "dump failed: %s\n", error);
        return 1;
    }
    CHECK(vicover_poll(job, &progress) == VICOVER_OK);
    CHECK(progress.phase == VICOVER_PHASE_DONE);
    CHECK(progress.status == VICOVER_OK);
    CHECK(progress.pages_total == MEMORY_MIB * 256);
    CHECK(progress.pages_dumped == progress.pages_planned);
    CHECK(progress.pages_released == 0);
    CHECK(progress.dump_bytes > 0);
    CHECK(vicover_dump_path(job, path, sizeof(path)) == VICOVER_OK);
    CHECK(lines > 0);
    puts(path);
    CHECK(vicover_free(job) == VICOVER_OK);
    return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Dumps that may not be as large as the guest: room DIRECTORY. There is one whatever
 * the limit, which is kept to and used. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

enum { NOISE_MIB = 16, ZEROES_MIB = 48 };

/* Pages that do not get smaller, and pages that take no space. */
static void make_image(const char *path)
{
    static char block[1 << 20];
    int image = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    int random = open("/dev/urandom", O_RDONLY | O_CLOEXEC);

    CHECK(image >= 0 && random >= 0);
    for (int i = 0; i < NOISE_MIB; i++) {
        CHECK(read(random, block, sizeof(block)) == sizeof(block));
        CHECK(write(image, block, sizeof(block)) == sizeof(block));
    }
    CHECK(ftruncate(image, (off_t)(NOISE_MIB + ZEROES_MIB) << 20) == 0);
    close(random);
    close(image);
}

static void dump_within(const char *dir, const char *image_path, long long limit)
{
    char spec[64], path[4096], error[512];
    struct vicover_options options = {
        .struct_size = sizeof(options), .name = "room", .dump_dir = dir, .spec = spec };
    struct vicover_image image = { .struct_size = sizeof(image), .path = image_path };
    struct vicover_verdict verdict = { .struct_size = sizeof(verdict) };
    struct stat found;
    vicover_job job;

    snprintf(spec, sizeof(spec), "threads=2,max_dump_size=%lld", limit);
    CHECK(vicover_dump_image(&options, &image, &job) == VICOVER_OK);
    CHECK(vicover_wait(job, VICOVER_UNTIL_DONE, 60000) == VICOVER_OK);
    CHECK(vicover_job_error(job, error, sizeof(error)) == VICOVER_OK);
    CHECK(vicover_dump_path(job, path, sizeof(path)) == VICOVER_OK);
    CHECK(vicover_free(job) == VICOVER_OK);
    if (*error || stat(path, &found)) {
        fprintf(stderr, "%s: %s\n", spec, error);
        exit(1);
    }
    if (found.st_size > limit || (limit <= 16 << 20 && found.st_size < limit / 20 * 19)) {
        fprintf(stderr, "%s: the dump has %lld bytes\n", spec, (long long)found.st_size);
        exit(1);
    }
    CHECK(vicover_verify(path, &verdict) == VICOVER_OK);
    CHECK(verdict.state == VICOVER_DUMP_COMPLETE && !verdict.lost_pages);
    CHECK(verdict.stored_pages > 0);
    CHECK(unlink(path) == 0);
}

int main(int argc, char **argv)
{
    static const long long limits[] = { 64 << 10, 1 << 20, 14 << 20, 15 << 20, 16 << 20, 17 << 20 };
    const char *dir = argc > 1 ? argv[1] : ".";
    char image[4096];

    snprintf(image, sizeof(image), "%s/image", dir);
    make_image(image);
    for (size_t i = 0; i < sizeof(limits) / sizeof(*limits); i++)
        dump_within(dir, image, limits[i]);
    return 0;
}

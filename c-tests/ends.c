/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* However a dump ends, its path, its name and the verdict on it agree: ends
 * DIRECTORY. */
#define _GNU_SOURCE
#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include "check.h"

static struct vicover_options options;
static struct vicover_image image;
/* Once the dump has begun no more files can be opened. */
static int no_more_files;
static int in_doubt;

static int is_of_dump(const struct vicover_event *happened, const char *event)
{
    return !strcmp(happened->about, "dump") && !strcmp(happened->event, event);
}

static void on_event(void *user, const struct vicover_event *happened)
{
    struct rlimit none;

    (void)user;
    if (no_more_files && is_of_dump(happened, "started")) {
        CHECK(getrlimit(RLIMIT_NOFILE, &none) == 0);
        none.rlim_cur = 0;
        CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    }
    in_doubt |= is_of_dump(happened, "not_lasting");
}

static void reset(const char *directory, const char *spec)
{
    memset(&options, 0, sizeof(options));
    options.struct_size = sizeof(options);
    options.spec = spec;
    options.name = "ends";
    options.dump_dir = directory;
    options.event = on_event;
    memset(&image, 0, sizeof(image));
    image.struct_size = sizeof(image);
    image.memory_bytes = 8 << 20;
    no_more_files = 0;
    in_doubt = 0;
}

/* Dumps, and cancels on request; says where the dump is then. */
static vicover_status dump(int cancelled, char *path, size_t size)
{
    struct vicover_progress progress = { .struct_size = sizeof(progress) };
    struct rlimit files;
    vicover_job job;

    CHECK(vicover_dump_image(&options, &image, &job) == VICOVER_OK);
    if (cancelled) {
        do {
            CHECK(vicover_poll(job, &progress) == VICOVER_OK);
        } while (!progress.pages_planned);
        CHECK(vicover_cancel(job) == VICOVER_OK);
    }
    CHECK(vicover_wait(job, VICOVER_UNTIL_DONE, 60000) == VICOVER_OK);
    CHECK(vicover_poll(job, &progress) == VICOVER_OK);
    CHECK(vicover_dump_path(job, path, size) == VICOVER_OK);
    CHECK(vicover_free(job) == VICOVER_OK);
    CHECK(getrlimit(RLIMIT_NOFILE, &files) == 0);
    files.rlim_cur = files.rlim_max;
    CHECK(setrlimit(RLIMIT_NOFILE, &files) == 0);
    return progress.status;
}

/* The one dump in the directory, which is removed, is what the path names. */
static void is(const char *path, const char *suffix, vicover_dump_state state)
{
    struct vicover_verdict verdict = { .struct_size = sizeof(verdict) };
    size_t length = strlen(path), end = strlen(suffix);

    CHECK(length > end && !strcmp(path + length - end, suffix));
    CHECK(vicover_verify(path, &verdict) == VICOVER_OK);
    CHECK(verdict.state == state);
    CHECK(unlink(path) == 0);
}

static int files_in(const char *directory)
{
    DIR *entries = opendir(directory);
    int count = 0;

    CHECK(entries);
    for (struct dirent *entry; (entry = readdir(entries));)
        count += strncmp(entry->d_name, "ends-", 5) == 0;
    closedir(entries);
    return count;
}

int main(int argc, char **argv)
{
    const char *directory = argc > 1 ? argv[1] : ".";
    char path[4096];

    /* Nothing fits: what was made is gone, and nothing is named. */
    reset(directory, "max_dump_size=4K");
    CHECK(dump(0, path, sizeof(path)) == VICOVER_ERR_IO);
    CHECK(!path[0] && files_in(directory) == 0);

    /* There was never any file. */
    reset("/nonexistent/directory", "");
    CHECK(dump(0, path, sizeof(path)) == VICOVER_ERR_IO);
    CHECK(!path[0]);

    /* Cancelled half way. */
    reset(directory, "io=fixed:1K,compress=none");
    CHECK(dump(1, path, sizeof(path)) == VICOVER_ERR_CANCELLED);
    if (path[0])
        is(path, ".kdump.incomplete", VICOVER_DUMP_INCOMPLETE);
    CHECK(files_in(directory) == 0);

    /* It is whole and has its name, but the directory cannot be synced. */
    reset(directory, "format=elf");
    no_more_files = 1;
    CHECK(dump(0, path, sizeof(path)) == VICOVER_OK);
    CHECK(in_doubt);
    is(path, ".elf", VICOVER_DUMP_COMPLETE);
    CHECK(files_in(directory) == 0);

    /* Its checksums cannot be put beside it. */
    reset(directory, "compress=none");
    no_more_files = 1;
    CHECK(dump(0, path, sizeof(path)) == VICOVER_ERR_IO);
    is(path, ".kdump.incomplete", VICOVER_DUMP_INCOMPLETE);
    CHECK(files_in(directory) == 0);
    return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The system grants one thread less than the library asks for, each in its turn:
 * threads DIRECTORY. The job ends, says why, and writes nothing to standard error. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

static const char why[] = "cannot start a thread: Resource temporarily unavailable";

/* Starts until one is refused. */
static atomic_int left;

/* The library's calls come here first. */
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                   void *(*start)(void *), void *argument)
{
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

    if (atomic_fetch_sub(&left, 1) == 1)
        return EAGAIN;
    *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    return real(thread, attributes, start, argument);
}

/* Takes what is written to standard error; what CHECK says still gets there. */
static int capture(const char *directory)
{
    static char path[4096];
    int standard = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 10), file;

    snprintf(path, sizeof(path), "%s/stderr", directory);
    file = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    CHECK(file >= 0 && dup2(file, STDERR_FILENO) == STDERR_FILENO);
    stderr = fdopen(standard, "w");
    return file;
}

int main(int argc, char **argv)
{
    struct vicover_options options = {
        .struct_size = sizeof(options),
        .spec = "threads=3,compress=none",
        .name = "threads",
        .dump_dir = argc > 1 ? argv[1] : ".",
    };
    struct vicover_image image = {
        .struct_size = sizeof(image),
        .memory_bytes = 8 << 20,
    };
    int file = capture(options.dump_dir);
    struct stat written;
    char error[512];
    vicover_job job;

    for (int number = 1;; number++) {
        atomic_store(&left, number);
        if (number == 1) {
            REFUSED(vicover_dump_image(&options, &image, &job), VICOVER_ERR_IO, why);
            continue;
        }
        CHECK(vicover_dump_image(&options, &image, &job) == VICOVER_OK);
        CHECK(vicover_wait(job, VICOVER_UNTIL_DONE, 60000) == VICOVER_OK);
        CHECK(vicover_job_error(job, error, sizeof(error)) == VICOVER_OK);
        CHECK(vicover_free(job) == VICOVER_OK);
        if (atomic_load(&left) > 0)
            break;
        /* The second one only looks after the pace: the dump does without. */
        CHECK(number == 2 ? !error[0] : strstr(error, why) != NULL);
    }
    CHECK(!error[0]);
    CHECK(fstat(file, &written) == 0 && written.st_size == 0);
    return 0;
}

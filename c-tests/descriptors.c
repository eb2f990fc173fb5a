/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A program that has closed its standard streams: descriptors DIRECTORY. None of the
 * library's files gets their numbers, and nothing that is printed gets into a dump. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "check.h"

static atomic_bool over;
static atomic_long lines;

/* What has their numbers while something is being opened is nobody's file. */
static void look(void)
{
    char name[64], target[256] = "";

    for (int fd = 0; fd < 3; fd++) {
        snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
        ssize_t length = readlink(name, target, sizeof(target));
        if (length >= 0 && strncmp(target, "anon_inode:", 11)) {
            fprintf(stderr, "descriptor %d is %.*s\n", fd, (int)length, target);
            exit(1);
        }
    }
}

static void log_line(void *user, vicover_level level, const char *message)
{
    (void)user, (void)level, (void)message;
    atomic_fetch_add(&lines, 1);
    look();
}

/* Prints as long as the dump goes on, and looks what that goes to. */
static void *print(void *unused)
{
    static const char text[] = "what a program prints";

    while (!atomic_load(&over)) {
        for (int fd = 0; fd < 3; fd++)
            CHECK(write(fd, text, sizeof(text)) == -1);
        look();
    }
    return unused;
}

int main(int argc, char **argv)
{
    struct vicover_options options = {
        .struct_size = sizeof(options),
        .spec = "events=/nobody/listens",
        .name = "descriptors",
        .dump_dir = argc > 1 ? argv[1] : ".",
        .log = log_line,
    };
    struct vicover_image image = {
        .struct_size = sizeof(image),
        .memory_bytes = 32 << 20,
    };
    struct vicover_verdict verdict = { .struct_size = sizeof(verdict) };
    char path[4096], error[512];
    pthread_t printer;
    vicover_job job;

    stderr = fdopen(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 10), "w");
    for (int fd = 0; fd < 3; fd++)
        close(fd);
    CHECK(pthread_create(&printer, NULL, print, NULL) == 0);
    /* What is open for an instant is not seen each time. */
    for (int dump = 0; dump < 8; dump++) {
        CHECK(vicover_dump_image(&options, &image, &job) == VICOVER_OK);
        CHECK(vicover_wait(job, VICOVER_UNTIL_DONE, 60000) == VICOVER_OK);
        CHECK(vicover_job_error(job, error, sizeof(error)) == VICOVER_OK);
        CHECK(!error[0] && atomic_load(&lines) > 0);
        CHECK(vicover_dump_path(job, path, sizeof(path)) == VICOVER_OK);
        CHECK(vicover_free(job) == VICOVER_OK);
        CHECK(vicover_verify(path, &verdict) == VICOVER_OK);
        CHECK(verdict.state == VICOVER_DUMP_COMPLETE);
    }
    atomic_store(&over, 1);
    CHECK(pthread_join(printer, NULL) == 0);
    for (int fd = 0; fd < 3; fd++)
        CHECK(fcntl(fd, F_GETFD) == -1 && errno == EBADF);
    return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Dumps to descriptors that the caller hands in, and has dumps verified:
 * sinks DIRECTORY. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "check.h"

static struct vicover_options options;
static struct vicover_image image;
static char path[4096];

static void reset(void)
{
    memset(&options, 0, sizeof(options));
    options.struct_size = sizeof(options);
    options.name = "sinks";
    options.spec = "compress=zlib";
    memset(&image, 0, sizeof(image));
    image.struct_size = sizeof(image);
    image.memory_bytes = 8 << 20;
}

/* Waits for a job, whose dump must end so and be at this path, and forgets it. */
static void await(vicover_job job, vicover_status expected, const char *at)
{
    struct vicover_progress progress = { .struct_size = sizeof(progress) };
    char error[512], text[4096];

    CHECK(vicover_wait(job, VICOVER_UNTIL_DONE, 60000) == VICOVER_OK);
    CHECK(vicover_poll(job, &progress) == VICOVER_OK);
    CHECK(vicover_job_error(job, error, sizeof(error)) == VICOVER_OK);
    if (progress.status != expected) {
        fprintf(stderr, "status %d, expected %d: %s\n", progress.status, expected, error);
        exit(1);
    }
    CHECK(vicover_dump_path(job, text, sizeof(text)) == VICOVER_OK);
    CHECK(!strcmp(text, at));
    CHECK(vicover_free(job) == VICOVER_OK);
}

/* The descriptor is closed as soon as the job has been started. */
static void dump_to(int fd, vicover_status expected)
{
    vicover_job job;

    options.flags = VICOVER_OPTION_SINK_FD;
    options.sink_fd = fd;
    CHECK(vicover_dump_image(&options, &image, &job) == VICOVER_OK);
    close(fd);
    await(job, expected, "");
}

static struct vicover_verdict verified(void)
{
    struct vicover_verdict verdict = { .struct_size = sizeof(verdict) };

    CHECK(vicover_verify(path, &verdict) == VICOVER_OK);
    return verdict;
}

static int created(void)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    CHECK(fd >= 0);
    return fd;
}

/* Takes a stream out of a pipe into the file. */
static void *collect(void *from)
{
    int in = *(int *)from, out = created();
    char buffer[65536];
    ssize_t got;

    while ((got = read(in, buffer, sizeof(buffer))) > 0)
        CHECK(write(out, buffer, (size_t)got) == got);
    CHECK(got == 0);
    close(out);
    return NULL;
}

static void to_a_file(void)
{
    struct vicover_verdict verdict;

    dump_to(created(), VICOVER_OK);
    verdict = verified();
    CHECK(verdict.state == VICOVER_DUMP_COMPLETE && !verdict.reason[0]);
    CHECK(!verdict.with_manifest);
    CHECK(verdict.wanted_pages == 2048 && verdict.zero_pages == 512);
    CHECK(verdict.stored_pages == 1536 && !verdict.lost_pages);

    CHECK(truncate(path, (off_t)verdict.length / 2) == 0);
    verdict = verified();
    CHECK(verdict.state == VICOVER_DUMP_INCOMPLETE);
    CHECK(strstr(verdict.reason, "ends before"));
    CHECK(verdict.wanted_pages == 2048 && verdict.lost_pages > 512);
    CHECK(verdict.stored_pages + verdict.zero_pages + verdict.lost_pages == 2048);
    uint64_t lost = verdict.lost_pages, cut_off;
    CHECK(vicover_mend(path, &cut_off) == VICOVER_OK && cut_off == lost);
    CHECK(vicover_mend(path, &cut_off) == VICOVER_OK && cut_off == 0);
    CHECK(vicover_mend(path, NULL) == VICOVER_OK);
    verdict = verified();
    CHECK(verdict.state == VICOVER_DUMP_INCOMPLETE && verdict.lost_pages == lost);

    FILE *file = fopen(path, "wb");
    CHECK(file && fwrite(path, 1, sizeof(path), file) == sizeof(path));
    fclose(file);
    verdict = verified();
    CHECK(verdict.state == VICOVER_DUMP_DAMAGED && verdict.reason[0]);
    REFUSED(vicover_mend(path, NULL), VICOVER_ERR_IO, "/dump: not a kdump");
}

static void to_a_pipe(void)
{
    struct vicover_verdict verdict;
    pthread_t reader;
    int ends[2];

    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    CHECK(pthread_create(&reader, NULL, collect, &ends[0]) == 0);
    dump_to(ends[1], VICOVER_OK);
    CHECK(pthread_join(reader, NULL) == 0);
    close(ends[0]);
    verdict = verified();
    CHECK(verdict.state == VICOVER_DUMP_COMPLETE);
    CHECK(verdict.wanted_pages == 2048 && !verdict.lost_pages);
}

static void to_a_pipe_that_nobody_reads(void)
{
    int ends[2];

    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    close(ends[0]);
    dump_to(ends[1], VICOVER_ERR_IO);
}

/* A FIFO by its name, which is then the dump's. */
static void to_a_fifo(const char *dir)
{
    char fifo[4096], spec[4096 + 8];
    pthread_t reader;
    vicover_job job;
    int both, from;

    reset();
    snprintf(fifo, sizeof(fifo), "%s/fifo", dir);
    snprintf(spec, sizeof(spec), "sink=%s", fifo);
    CHECK(mkfifo(fifo, 0600) == 0);
    /* Open for both at first: then opening waits for nobody. */
    both = open(fifo, O_RDWR | O_CLOEXEC);
    from = open(fifo, O_RDONLY | O_CLOEXEC);
    CHECK(both >= 0 && from >= 0);
    options.spec = spec;
    CHECK(pthread_create(&reader, NULL, collect, &from) == 0);
    CHECK(vicover_dump_image(&options, &image, &job) == VICOVER_OK);
    await(job, VICOVER_OK, fifo);
    close(both);
    CHECK(pthread_join(reader, NULL) == 0);
    close(from);
    CHECK(verified().state == VICOVER_DUMP_COMPLETE);
    /* Nobody is at its other end now: it is refused, not waited for. */
    struct vicover_verdict verdict = { .struct_size = sizeof(verdict) };
    REFUSED(vicover_verify(fifo, &verdict), VICOVER_ERR_IO,
            "/fifo: neither a regular file nor a block device");
    REFUSED(vicover_mend(fifo, NULL), VICOVER_ERR_IO, "/fifo: neither a regular");
    reset();
}

/* A file system that does not say how large it is, is not full. */
static void to_memory(void)
{
    int fd = memfd_create("dump", MFD_CLOEXEC);
    struct stat found;

    CHECK(fd >= 0);
    dump_to(dup(fd), VICOVER_OK);
    CHECK(fstat(fd, &found) == 0 && found.st_size > 1 << 16);
    close(fd);
}

/* What no dump can be written by is refused before anything is done, and what it
 * is open for is not lost. */
static void refuse_descriptor(int fd, const char *why)
{
    char kept[8] = "";
    vicover_job job;

    CHECK(fd >= 0);
    options.flags = VICOVER_OPTION_SINK_FD;
    options.sink_fd = fd;
    REFUSED(vicover_dump_image(&options, &image, &job), VICOVER_ERR_IO, why);
    close(fd);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(read(fd, kept, sizeof(kept)) == 4 && !strcmp(kept, "kept"));
    close(fd);
}

static void unfit_descriptors(void)
{
    int fd = created(), ends[2];

    CHECK(write(fd, "kept", 4) == 4);
    close(fd);
    refuse_descriptor(open(path, O_WRONLY | O_APPEND | O_CLOEXEC), "open with O_APPEND");
    refuse_descriptor(open(path, O_RDWR | O_APPEND | O_CLOEXEC), "open with O_APPEND");
    refuse_descriptor(open(path, O_RDONLY | O_CLOEXEC), "not open for writing");
    refuse_descriptor(open(path, O_PATH | O_CLOEXEC), "not open for writing");
    fd = open(path, O_WRONLY | O_DIRECT | O_CLOEXEC);
    if (fd >= 0) /* not every file system has it */
        refuse_descriptor(fd, "open with O_DIRECT");
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    refuse_descriptor(ends[0], "not open for writing");
    close(ends[1]);
    refuse_descriptor(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC),
                      "neither a file nor a device, pipe or socket");
    refuse_descriptor(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "s a directory");
}

/* Descriptor 0 is as good as any. */
static void to_descriptor_zero(void)
{
    int fd = created();

    CHECK(dup2(fd, 0) == 0);
    close(fd);
    dump_to(0, VICOVER_OK);
    CHECK(verified().state == VICOVER_DUMP_COMPLETE);
}

static void elf(void)
{
    int ends[2];

    options.spec = "format=elf";
    dump_to(created(), VICOVER_OK);
    CHECK(verified().state == VICOVER_DUMP_COMPLETE);
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    dump_to(ends[1], VICOVER_ERR_IO);
    close(ends[0]);
    options.spec = NULL;
}

/* Under a name of the caller's choice, which is never taken from another. */
static void to_a_named_file(const char *dir)
{
    char named[4096 + 16], incomplete[4096 + 32], text[4096 + 16];
    struct vicover_verdict verdict = { .struct_size = sizeof(verdict) };
    vicover_job job;

    reset();
    snprintf(named, sizeof(named), "%s/named", dir);
    snprintf(incomplete, sizeof(incomplete), "%s.incomplete", named);
    options.dump_file = named;
    CHECK(vicover_dump_image(&options, &image, &job) == VICOVER_OK);
    CHECK(vicover_wait(job, VICOVER_UNTIL_DONE, 60000) == VICOVER_OK);
    CHECK(vicover_dump_path(job, text, sizeof(text)) == VICOVER_OK);
    CHECK(!strcmp(text, named));
    CHECK(vicover_free(job) == VICOVER_OK);
    CHECK(vicover_verify(named, &verdict) == VICOVER_OK);
    CHECK(verdict.state == VICOVER_DUMP_COMPLETE && verdict.with_manifest);

    REFUSED(vicover_dump_image(&options, &image, &job), VICOVER_ERR_IO,
            "/named: File exists");
    CHECK(access(incomplete, F_OK) == -1);
    options.spec = "sink=/dev/null";
    REFUSED(vicover_dump_image(&options, &image, &job), VICOVER_ERR_OPTION,
            "/named and sink=/dev/null are given");
    reset();
}

static void misuse(void)
{
    struct vicover_verdict verdict = { .struct_size = sizeof(verdict) };
    vicover_job job;

    reset();
    options.flags = 6;
    REFUSED(vicover_dump_image(&options, &image, &job), VICOVER_ERR_OPTION, "flags has 0x6");
    reset();
    options.sink_fd = 5;
    REFUSED(vicover_dump_image(&options, &image, &job), VICOVER_ERR_OPTION, "sink_fd is 5");
    options.flags = VICOVER_OPTION_SINK_FD;
    options.sink_fd = -1;
    REFUSED(vicover_dump_image(&options, &image, &job), VICOVER_ERR_IO,
            "descriptor -1 as sink: Bad file descriptor");
    options.spec = "sink=/dev/null";
    REFUSED(vicover_dump_image(&options, &image, &job), VICOVER_ERR_OPTION,
            "both sink_fd and sink=/dev/null");
    reset();
    /* A program of the first version of the ABI knows nothing of these. */
    options.struct_size = offsetof(struct vicover_options, flags);
    options.flags = 0xffffffff;
    options.dump_dir = "/nonexistent/dumps";
    CHECK(vicover_dump_image(&options, &image, &job) == VICOVER_OK);
    CHECK(vicover_wait(job, VICOVER_UNTIL_DONE, 60000) == VICOVER_OK);
    CHECK(vicover_free(job) == VICOVER_OK);

    REFUSED(vicover_verify(NULL, &verdict), VICOVER_ERR_NULL, "path");
    REFUSED(vicover_verify(path, NULL), VICOVER_ERR_NULL, "vicover_verdict");
    REFUSED(vicover_mend(NULL, NULL), VICOVER_ERR_NULL, "path");
    REFUSED(vicover_verify("/nonexistent", &verdict), VICOVER_ERR_IO, "/nonexistent: No such file");
    verdict.struct_size = 8;
    REFUSED(vicover_verify(path, &verdict), VICOVER_ERR_STRUCT_SIZE, "is 8");
}

int main(int argc, char **argv)
{
    snprintf(path, sizeof(path), "%s/dump", argc > 1 ? argv[1] : ".");
    reset();
    to_a_file();
    to_a_pipe();
    to_a_pipe_that_nobody_reads();
    to_memory();
    unfit_descriptors();
    to_a_fifo(argc > 1 ? argv[1] : ".");
    to_descriptor_zero();
    elf();
    to_a_named_file(argc > 1 ? argv[1] : ".");
    misuse();
    return 0;
}

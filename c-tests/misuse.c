/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whatever a caller gets wrong is answered, never crashed on. */
#include <unistd.h>

#include "check.h"

static struct vicover_options options;
static struct vicover_image image;

static void reset(const char *dir)
{
    memset(&options, 0, sizeof(options));
    options.struct_size = sizeof(options);
    options.name = "misuse";
    options.dump_dir = dir;
    memset(&image, 0, sizeof(image));
    image.struct_size = sizeof(image);
    image.memory_bytes = 1 << 20;
}

static void nulls(void)
{
    vicover_job job = 7;

    REFUSED(vicover_dump_image(NULL, &image, &job), VICOVER_ERR_NULL,
            "vicover_options");
    REFUSED(vicover_dump_image(&options, NULL, &job), VICOVER_ERR_NULL,
            "vicover_image");
    REFUSED(vicover_dump_image(&options, &image, NULL), VICOVER_ERR_NULL,
            "job");
    REFUSED(vicover_recover(&options, NULL, &job), VICOVER_ERR_NULL,
            "vicover_crash");
    struct vicover_crash crash = { .struct_size = sizeof(crash) };
    REFUSED(vicover_recover(&options, &crash, &job), VICOVER_ERR_NULL, "ctx");
    crash.flags = VICOVER_CRASH_IF_PANICKED | 0x6;
    REFUSED(vicover_recover(&options, &crash, &job), VICOVER_ERR_OPTION, "flags has 0x6");
    struct vicover_domain domain = { .struct_size = sizeof(domain) };
    REFUSED(vicover_dump_domain(&options, NULL, &job), VICOVER_ERR_NULL,
            "vicover_domain");
    REFUSED(vicover_dump_domain(&options, &domain, &job), VICOVER_ERR_NULL,
            "vicover_domain.ctx");
    domain.reserved = 1;
    REFUSED(vicover_dump_domain(&options, &domain, &job),
            VICOVER_ERR_STRUCT_SIZE, "vicover_domain.reserved");
    domain.reserved = 0;
    domain.ctx = (void *)&domain;
    domain.config = (void *)&domain;
    REFUSED(vicover_dump_domain(&options, &domain, &job),
            VICOVER_ERR_UNSUPPORTED, "domid is 0");
    CHECK(job == 0);
    REFUSED(vicover_poll(1000, NULL), VICOVER_ERR_HANDLE, "1000");
}

static void write_text(const char *dir, const char *name, const char *text)
{
    char path[512];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    file = fopen(path, "w");
    CHECK(file && fputs(text, file) >= 0 && !fclose(file));
}

/* Journals of crashes that there are not, or that nobody can go on with. */
static void journals(const char *dir)
{
    struct vicover_interrupted found = { .struct_size = sizeof(found) };
    struct vicover_crash crash = {
        .struct_size = sizeof(crash),
        .ctx = (void *)&crash,
        .config = (void *)&crash,
        .domid = 7,
    };
    struct vicover_options bare = { .struct_size = sizeof(bare) };
    char missing[512];
    vicover_job job = 7;

    snprintf(missing, sizeof(missing), "%s/missing", dir);
    REFUSED(vicover_find_interrupted(missing, NULL, 0, &found),
            VICOVER_ERR_TIMEOUT, "no crash to go on with");
    REFUSED(vicover_find_interrupted(dir, "web1", 10, &found),
            VICOVER_ERR_TIMEOUT, "no crash to go on with");
    write_text(dir, "bad.journal", "nonsense\n");
    REFUSED(vicover_find_interrupted(dir, NULL, 0, NULL), VICOVER_ERR_NULL,
            "vicover_interrupted");
    CHECK(vicover_find_interrupted(dir, NULL, VICOVER_FOREVER, &found) ==
          VICOVER_OK);
    CHECK(!*found.guest && strstr(found.journal, "/bad.journal"));
    CHECK(access(found.journal, F_OK) == 0);

    REFUSED(vicover_resume(&bare, NULL, &crash, &job), VICOVER_ERR_NULL,
            "vicover_interrupted");
    REFUSED(vicover_resume(&bare, &found, NULL, &job), VICOVER_ERR_NULL,
            "vicover_crash");
    REFUSED(vicover_resume(&bare, &found, &crash, &job), VICOVER_ERR_OPTION,
            "domid must be that of interrupted");
    found.domid = 7;
    REFUSED(vicover_resume(&bare, &found, &crash, &job),
            VICOVER_ERR_UNSUPPORTED, "line 1");
    CHECK(access(found.journal, F_OK) != 0 && job == 0);
    REFUSED(vicover_resume(&bare, &found, &crash, &job), VICOVER_ERR_BUSY,
            "or it is over");
    memset(found.journal, 'x', sizeof(found.journal));
    REFUSED(vicover_resume(&bare, &found, &crash, &job), VICOVER_ERR_OPTION,
            "vicover_interrupted.journal");
}

static void sizes(const char *dir)
{
    vicover_job job;
    struct { struct vicover_options known; char later[16]; } newer;

    options.struct_size = 0;
    REFUSED(vicover_dump_image(&options, &image, &job),
            VICOVER_ERR_STRUCT_SIZE, "vicover_options.struct_size is 0");
    options.struct_size = (size_t)-1;
    REFUSED(vicover_dump_image(&options, &image, &job),
            VICOVER_ERR_STRUCT_SIZE, "struct_size");
    reset(dir);

    /* A caller newer than the library, using nothing new: accepted. */
    memset(&newer, 0, sizeof(newer));
    newer.known = options;
    newer.known.struct_size = sizeof(newer);
    CHECK(vicover_dump_image(&newer.known, &image, &job) == VICOVER_OK);
    CHECK(vicover_wait(job, VICOVER_UNTIL_DONE, 60000) == VICOVER_OK);
    CHECK(vicover_free(job) == VICOVER_OK);
    /* ... and using something new: refused, not ignored. */
    newer.later[3] = 1;
    REFUSED(vicover_dump_image(&newer.known, &image, &job),
            VICOVER_ERR_STRUCT_SIZE, "does not know");

    image.reserved = 1;
    REFUSED(vicover_dump_image(&options, &image, &job),
            VICOVER_ERR_STRUCT_SIZE, "reserved");
    reset(dir);
}

static void bad_options(void)
{
    vicover_job job;

    REFUSED(vicover_check_options("speed=9"), VICOVER_ERR_OPTION,
            "unknown option 'speed'; allowed: ");
    REFUSED(vicover_check_options("compress=lzma"), VICOVER_ERR_OPTION,
            "'compress': bad value 'lzma'; allowed: none, zlib, zstd");
    REFUSED(vicover_check_options("\xff=1"), VICOVER_ERR_OPTION, "UTF-8");
    CHECK(vicover_check_options(NULL) == VICOVER_OK);
    CHECK(vicover_check_options("compress=zstd,compress_level=3") == VICOVER_OK);
    options.spec = "compress=lzma";
    REFUSED(vicover_dump_image(&options, &image, &job), VICOVER_ERR_OPTION,
            "lzma");
    options.spec = NULL;
    image.memory_bytes = 1;
    REFUSED(vicover_dump_image(&options, &image, &job), VICOVER_ERR_OPTION,
            "memory_bytes is 1");
    image.path = "/nonexistent/image";
    REFUSED(vicover_dump_image(&options, &image, &job), VICOVER_ERR_IO,
            "/nonexistent/image: No such file");
}

/* A buffer of just the size that was asked for will do. */
static void path(vicover_job job)
{
    size_t needed = strtoul(strstr(vicover_last_error(), "needed: ") + 8, NULL, 10);
    char *whole = malloc(needed);

    REFUSED(vicover_dump_path(job, whole, needed - 1), VICOVER_ERR_BUFFER,
            "needed");
    CHECK(vicover_dump_path(job, whole, needed) == VICOVER_OK);
    CHECK(strlen(whole) == needed - 1);
    CHECK(!access(whole, R_OK));
    free(whole);
}

static void texts(const char *dir)
{
    struct vicover_progress progress = { .struct_size = sizeof(progress) };
    vicover_job job;
    char text[300], small[8];

    /* Control characters of the caller's come back as text. */
    REFUSED(vicover_check_options("a\nb\033[2J=1"), VICOVER_ERR_OPTION,
            "unknown option 'a\\nb\\u{1b}[2J'");
    CHECK(!strchr(vicover_last_error(), '\n'));

    /* A dump of an image that fails is nobody's to restart. */
    reset(dir);
    options.spec = "max_dump_size=1";
    CHECK(vicover_dump_image(&options, &image, &job) == VICOVER_OK);
    CHECK(vicover_wait(job, VICOVER_UNTIL_DONE, -2) == VICOVER_OK);
    CHECK(vicover_poll(job, &progress) == VICOVER_OK);
    CHECK(progress.status == VICOVER_ERR_IO);
    CHECK(progress.outcome == VICOVER_OUTCOME_UNTOUCHED);
    CHECK(vicover_job_error(job, text, sizeof(text)) == VICOVER_OK);
    CHECK(strstr(text, "no room"));
    CHECK(vicover_job_error(job, small, sizeof(small)) == VICOVER_OK);
    CHECK(strlen(small) == sizeof(small) - 1 && !memcmp(small, text, 7));
    CHECK(vicover_free(job) == VICOVER_OK);
}

static void preflight(void)
{
    struct vicover_domain domain = { .struct_size = sizeof(domain) };
    struct vicover_preflight found = { .struct_size = sizeof(found) };

    reset("/tmp");
    REFUSED(vicover_check_domain(NULL, &domain, &found), VICOVER_ERR_NULL,
            "vicover_options");
    REFUSED(vicover_check_domain(&options, NULL, &found), VICOVER_ERR_NULL,
            "vicover_domain");
    REFUSED(vicover_check_domain(&options, &domain, &found), VICOVER_ERR_NULL,
            "ctx");
    options.dump_file = "/tmp/never-made";
    REFUSED(vicover_check_domain(&options, &domain, &found),
            VICOVER_ERR_OPTION, "dump_file and flags");
    CHECK(access("/tmp/never-made.incomplete", F_OK));
    options.dump_file = NULL;
    options.spec = "compress=lzma";
    REFUSED(vicover_check_domain(&options, &domain, &found),
            VICOVER_ERR_OPTION, "lzma");
}

static void handles(const char *dir)
{
    vicover_job job;
    struct vicover_progress progress = { .struct_size = sizeof(progress) };
    char text[8];

    reset(dir);
    CHECK(vicover_dump_image(&options, &image, &job) == VICOVER_OK);
    CHECK(job != 0);
    REFUSED(vicover_wait(job, 99, 0), VICOVER_ERR_OPTION, "until is 99");
    REFUSED(vicover_set_io(job, NULL), VICOVER_ERR_NULL, "policy");
    REFUSED(vicover_set_io(job, "share:0"), VICOVER_ERR_OPTION,
            "'io': bad value 'share:0'; allowed: unlimited, fixed:RATE");
    REFUSED(vicover_set_io(1000, "unlimited"), VICOVER_ERR_HANDLE, "1000");
    CHECK(vicover_wait(job, VICOVER_UNTIL_DONE, VICOVER_FOREVER) == VICOVER_OK);
    CHECK(vicover_set_io(job, "adaptive") == VICOVER_OK); /* too late: no harm */
    REFUSED(vicover_poll(job, NULL), VICOVER_ERR_NULL, "vicover_progress");
    progress.struct_size = 1;
    REFUSED(vicover_poll(job, &progress), VICOVER_ERR_STRUCT_SIZE, "is 1");
    REFUSED(vicover_dump_path(job, NULL, 5), VICOVER_ERR_NULL, "buffer");
    /* A path that is cut names another file: all of it or nothing. */
    REFUSED(vicover_dump_path(job, text, sizeof(text)), VICOVER_ERR_BUFFER,
            "the buffer has 8 bytes; needed: ");
    CHECK(!*text);
    path(job);
    CHECK(vicover_free(job) == VICOVER_OK);
    REFUSED(vicover_free(job), VICOVER_ERR_HANDLE, "freed already");
    REFUSED(vicover_cancel(job), VICOVER_ERR_HANDLE, "freed already");
    REFUSED(vicover_free(0), VICOVER_ERR_HANDLE, "no job 0");
}

int main(int argc, char **argv)
{
    const char *dir = argc > 1 ? argv[1] : ".";

    reset(dir);
    nulls();
    journals(dir);
    sizes(dir);
    bad_options();
    handles(dir);
    texts(dir);
    preflight();
    return 0;
}

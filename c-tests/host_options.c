/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Options of the host: host_options DIRECTORY. They count where a caller says nothing
 * else, and a fault in them keeps no dump from being made. */
#include <unistd.h>

#include "check.h"

static int refusals;

static void log_line(void *user, vicover_level level, const char *message)
{
    (void)user;
    if (level == VICOVER_LOG_WARN && strstr(message, "the host's options are not taken"))
        refusals++;
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");

    CHECK(file && fputs(text, file) >= 0 && fclose(file) == 0);
}

/* Dumps, and says in path where to. */
static void dump(const struct vicover_options *options, char path[4096])
{
    struct vicover_image image = { .struct_size = sizeof(image), .memory_bytes = 16 << 20 };
    char error[512];
    vicover_job job;

    CHECK(vicover_dump_image(options, &image, &job) == VICOVER_OK);
    CHECK(vicover_wait(job, VICOVER_UNTIL_DONE, VICOVER_FOREVER) == VICOVER_OK);
    CHECK(vicover_job_error(job, error, sizeof(error)) == VICOVER_OK);
    CHECK(vicover_dump_path(job, path, 4096) == VICOVER_OK);
    CHECK(vicover_free(job) == VICOVER_OK);
    if (*error) {
        fprintf(stderr, "dump failed: %s\n", error);
        exit(1);
    }
    CHECK(access(path, R_OK) == 0);
}

static int ends_in(const char *path, const char *end)
{
    size_t length = strlen(path);

    return length > strlen(end) && !strcmp(path + length - strlen(end), end);
}

int main(int argc, char **argv)
{
    const char *dir = argc > 1 ? argv[1] : ".";
    char conf[4096], text[4200], path[4096];
    struct vicover_options options = {
        .struct_size = sizeof(options),
        .name = "web1",
        .log = log_line,
        .conf_file = conf,
    };

    snprintf(conf, sizeof(conf), "%s/vicover.conf", dir);
    snprintf(text, sizeof(text), "# of all\nformat = elf\ndirectory=%s/dumps\n", dir);
    write_file(conf, text);
    dump(&options, path);
    CHECK(strstr(path, "/dumps/web1-") && ends_in(path, ".elf"));

    /* What a caller says goes first. */
    options.spec = "compress=zstd";
    dump(&options, path);
    CHECK(strstr(path, "/dumps/web1-") && ends_in(path, ".kdump"));
    options.dump_dir = dir;
    dump(&options, path);
    CHECK(!strstr(path, "/dumps/"));

    /* Where this dump goes is not the host's affair. */
    write_file(conf, "sink=/no/such\n");
    snprintf(text, sizeof(text), "%s/mine", dir);
    options.dump_file = text;
    dump(&options, path);
    CHECK(!strcmp(path, text));
    options.dump_file = NULL;

    CHECK(refusals == 0);
    write_file(conf, "keep=3\nkeep=many\n");
    dump(&options, path);
    CHECK(refusals == 1);
    /* There is none. */
    CHECK(unlink(conf) == 0);
    dump(&options, path);
    CHECK(refusals == 1);
    return 0;
}

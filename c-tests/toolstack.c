/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A toolstack for one guest, small enough to read: it creates the guest, watches
 * it, and has libvicover dump and recover it when it crashes.
 *
 *     xl create -n guest.cfg > guest.json
 *     toolstack [--verbose] [--dump-dir DIR] guest.json [OPTIONS]
 *
 * OPTIONS are libvicover's, such as "compress=zstd,standby=1". The program stays
 * until the guest has ended and its last dump is written; do not kill it while it
 * writes one. Lines on stdout are its own, those on stderr libvicover's and libxl's.
 *
 *     cc -o toolstack toolstack.c \
 *         $(pkg-config --cflags --libs vicover xenlight xentoollog)
 */
#include <err.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <libxl.h>
#include <vicover.h>
#include <xentoollog.h>

#define MAX_CONFIG_BYTES (1 << 20)
/* How often to look for memory that a dump being written has given back. */
#define MEMORY_POLL_MS 200
/* As xl does: the last of a destroyed domain goes a moment after it. */
#define SETTLE_S 2

struct guest {
    libxl_ctx *ctx;
    libxl_domain_config config;
    const char *spec;     /* libvicover's options; NULL: its defaults */
    const char *dump_dir; /* NULL: libvicover's default */
    bool verbose;         /* show libvicover's lines for debugging, too */
    uint32_t domid;
    vicover_job dump;     /* the one being written, 0: none */
    vicover_job standby;  /* what keeps a standby, 0: nothing */
};

/* What to do when a domain is no longer watched. */
enum next { NEXT_WATCH, NEXT_CREATE, NEXT_END, NEXT_FAIL };

/* Called from threads of libvicover. */
static void log_line(void *user, vicover_level level, const char *message)
{
    const struct guest *guest = user;

    if (level < VICOVER_LOG_DEBUG || guest->verbose)
        fprintf(stderr, "vicover: %s%s\n",
                level == VICOVER_LOG_ERROR  ? "error: "
                : level == VICOVER_LOG_WARN ? "warning: "
                                            : "",
                message);
}

static struct vicover_options options_of(struct guest *guest)
{
    return (struct vicover_options){
        .struct_size = sizeof(struct vicover_options),
        .spec = guest->spec,
        .name = guest->config.c_info.name,
        .dump_dir = guest->dump_dir,
        .log = log_line,
        .log_user = guest,
    };
}

/* Says how the dump ended that is over, and forgets its job. */
static void report_dump(struct guest *guest)
{
    char path[PATH_MAX] = "", error[1024] = "";

    vicover_dump_path(guest->dump, path, sizeof(path));
    vicover_job_error(guest->dump, error, sizeof(error));
    if (*error)
        printf("vicover: dump %s is incomplete: %s\n", *path ? path : "(no file)", error);
    else if (*path)
        printf("vicover: dump %s is complete\n", path);
    else
        printf("vicover: the dump left no file\n");
    if (vicover_free(guest->dump) != VICOVER_OK)
        printf("vicover: %s\n", vicover_last_error());
    guest->dump = 0;
}

/* Gives a dump timeout_ms to end, and returns whether it is still being written. */
static bool dump_runs(struct guest *guest, int64_t timeout_ms)
{
    if (!guest->dump)
        return false;
    if (vicover_wait(guest->dump, VICOVER_UNTIL_DONE, timeout_ms) ==
        VICOVER_ERR_TIMEOUT)
        return true;
    report_dump(guest);
    return false;
}

/* Only the crash that it is for can use a standby: without one it is in the way. */
static void end_standby(struct guest *guest)
{
    if (!guest->standby)
        return;
    vicover_cancel(guest->standby);
    vicover_wait(guest->standby, VICOVER_UNTIL_DONE, VICOVER_FOREVER);
    if (vicover_free(guest->standby) != VICOVER_OK)
        printf("vicover: %s\n", vicover_last_error());
    guest->standby = 0;
}

/* Does nothing when the options ask for no standby. */
static void keep_standby(struct guest *guest)
{
    struct vicover_options options = options_of(guest);
    struct vicover_domain domain = {
        .struct_size = sizeof(domain),
        .ctx = guest->ctx,
        .config = &guest->config,
        .domid = guest->domid,
    };

    if (vicover_keep_standby(&options, &domain, &guest->standby) != VICOVER_OK) {
        printf("vicover: no standby: %s\n", vicover_last_error());
        guest->standby = 0;
    }
}

/* The configuration as the domain is now, with devices that came and went. Must
 * come before the domain loses devices, which it does in a recovery. */
static void read_config(struct guest *guest)
{
    libxl_domain_config now;
    int rc;

    libxl_domain_config_init(&now);
    rc = libxl_retrieve_domain_configuration(guest->ctx, guest->domid, &now, NULL);
    if (rc) {
        printf("toolstack: domain %" PRIu32 " has no configuration (rc=%d), "
               "using the one before\n", guest->domid, rc);
        libxl_domain_config_dispose(&now);
        return;
    }
    libxl_domain_config_dispose(&guest->config);
    guest->config = now;
}

static bool memory_suffices(struct guest *guest)
{
    uint64_t need_kb, free_kb;

    return !libxl_domain_need_memory(guest->ctx, &guest->config, INVALID_DOMID,
                                     &need_kb) &&
           !libxl_get_free_memory(guest->ctx, &free_kb) && free_kb >= need_kb;
}

/* A domain whose dump is being written holds memory until it is written. */
static void wait_for_memory(struct guest *guest)
{
    if (!dump_runs(guest, 0) || memory_suffices(guest))
        return;
    printf("vicover: waiting for memory that the dump gives back\n");
    while (dump_runs(guest, MEMORY_POLL_MS) && !memory_suffices(guest))
        ;
}

static bool create(struct guest *guest)
{
    int rc;

    wait_for_memory(guest);
    guest->domid = INVALID_DOMID;
    /* Nobody is connected to the console: `xl console` does that. */
    rc = libxl_domain_create_new(guest->ctx, &guest->config, &guest->domid, NULL, NULL);
    if (!rc)
        rc = libxl_domain_unpause(guest->ctx, guest->domid, NULL);
    if (!rc)
        return true;
    printf("toolstack: %s cannot be created (rc=%d)\n", guest->config.c_info.name, rc);
    if (libxl_domid_valid_guest(guest->domid))
        libxl_domain_destroy(guest->ctx, guest->domid, NULL);
    return false;
}

static enum next destroy(struct guest *guest, enum next next)
{
    int rc = libxl_domain_destroy(guest->ctx, guest->domid, NULL);

    if (rc) {
        printf("toolstack: domain %" PRIu32 " cannot be destroyed (rc=%d)\n",
               guest->domid, rc);
        return NEXT_FAIL;
    }
    if (next == NEXT_CREATE) {
        printf("toolstack: Done. Rebooting now\n");
        sleep(SETTLE_S);
    }
    return next;
}

/* An outcome that cannot be learned is one that changed the domain. */
static vicover_outcome outcome_of(struct guest *guest)
{
    struct vicover_progress progress = { .struct_size = sizeof(progress) };

    if (vicover_wait(guest->dump, VICOVER_UNTIL_DECIDED, VICOVER_FOREVER) !=
            VICOVER_OK ||
        vicover_poll(guest->dump, &progress) != VICOVER_OK) {
        printf("vicover: no outcome: %s\n", vicover_last_error());
        return VICOVER_OUTCOME_DIRTY;
    }
    if (progress.outcome == VICOVER_OUTCOME_ADOPTED) {
        printf("vicover: domain %" PRIu32 " crashed, domain %" PRIu32
               " takes its place\n", guest->domid, progress.recovery_domid);
        guest->domid = progress.recovery_domid;
    }
    return progress.outcome;
}

/* Does with a domain that keeps crashing what the option on_crash_loop says. */
static enum next give_up(struct guest *guest, vicover_outcome outcome)
{
    printf("vicover: domain %" PRIu32 " keeps crashing and is not replaced\n",
           guest->domid);
    dump_runs(guest, VICOVER_FOREVER);
    if (outcome == VICOVER_OUTCOME_PRESERVE)
        return NEXT_END;
    return destroy(guest, outcome == VICOVER_OUTCOME_RESTART ? NEXT_CREATE : NEXT_END);
}

/* Hands a crashed domain, whose configuration was just read, to libvicover. */
static enum next recover(struct guest *guest)
{
    struct vicover_options options = options_of(guest);
    struct vicover_crash crash = {
        .struct_size = sizeof(crash),
        .ctx = guest->ctx,
        .config = &guest->config,
        .domid = guest->domid,
        .standby = guest->standby,
    };
    vicover_job job;
    vicover_outcome outcome;
    vicover_status status = vicover_recover(&options, &crash, &job);

    if (status == VICOVER_ERR_BUSY)
        printf("vicover: domain %" PRIu32 " is restarted without a dump: %s\n",
               guest->domid, vicover_last_error());
    else if (status != VICOVER_OK)
        printf("vicover: libvicover declines: %s\n", vicover_last_error());
    if (status != VICOVER_OK)
        return destroy(guest, NEXT_CREATE);

    /* With on_recrash=queue the new job waits for the one before: so do we. */
    dump_runs(guest, VICOVER_FOREVER);
    guest->dump = job;
    outcome = outcome_of(guest);
    switch (outcome) {
    case VICOVER_OUTCOME_ADOPTED:
        return NEXT_WATCH;
    case VICOVER_OUTCOME_UNTOUCHED:
        printf("vicover: domain %" PRIu32 " is as it crashed\n", guest->domid);
        break;
    case VICOVER_OUTCOME_RESTART:
    case VICOVER_OUTCOME_DESTROY:
    case VICOVER_OUTCOME_PRESERVE:
        return give_up(guest, outcome);
    default:
        printf("vicover: domain %" PRIu32 " could not be replaced and must be "
               "restarted\n", guest->domid);
    }
    /* What is left of the domain may still be read for the dump. */
    dump_runs(guest, VICOVER_FOREVER);
    return destroy(guest, NEXT_CREATE);
}

static enum next shut_down(struct guest *guest, libxl_shutdown_reason reason)
{
    printf("toolstack: Domain %" PRIu32 " has shut down, reason code %d 0x%x\n",
           guest->domid, reason, reason);
    read_config(guest);
    switch (reason) {
    case LIBXL_SHUTDOWN_REASON_CRASH:
    case LIBXL_SHUTDOWN_REASON_WATCHDOG:
        return recover(guest);
    case LIBXL_SHUTDOWN_REASON_REBOOT:
        return destroy(guest, NEXT_CREATE);
    case LIBXL_SHUTDOWN_REASON_SUSPEND: /* it belongs to who saves it */
        return NEXT_END;
    default:
        return destroy(guest, NEXT_END);
    }
}

/* The next event of the guest's domain; NULL when there will be none. */
static libxl_event *next_event(struct guest *guest)
{
    libxl_event *event;
    int rc;

    for (;;) {
        rc = libxl_event_wait(guest->ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL);
        if (rc)
            break;
        if (event->domid == guest->domid &&
            (event->type == LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN ||
             event->type == LIBXL_EVENT_TYPE_DOMAIN_DEATH))
            return event;
        libxl_event_free(guest->ctx, event); /* of a domain before this one */
    }
    printf("toolstack: no event comes (rc=%d)\n", rc);
    return NULL;
}

/* Watches the domain until it ends, and does what has to be done then. */
static enum next watch(struct guest *guest)
{
    libxl_evgen_domain_death *death;
    libxl_event *event;
    enum next next = NEXT_FAIL;
    int rc = libxl_evenable_domain_death(guest->ctx, guest->domid, 0, &death);

    if (rc) {
        printf("toolstack: domain %" PRIu32 " cannot be watched (rc=%d)\n",
               guest->domid, rc);
        return NEXT_FAIL;
    }
    printf("toolstack: Waiting for domain %s (domid %" PRIu32 ") to die [pid %ld]\n",
           guest->config.c_info.name, guest->domid, (long)getpid());
    read_config(guest);
    keep_standby(guest);
    event = next_event(guest);
    libxl_evdisable_domain_death(guest->ctx, death);
    if (event && event->type == LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN) {
        next = shut_down(guest, event->u.domain_shutdown.shutdown_reason);
    } else if (event) {
        printf("toolstack: Domain %" PRIu32 " has been destroyed.\n", guest->domid);
        next = NEXT_END;
    }
    if (event)
        libxl_event_free(guest->ctx, event);
    end_standby(guest);
    return next;
}

/* Creates the guest, and again when it reboots, until it ends. */
static enum next live(struct guest *guest)
{
    enum next next = NEXT_CREATE;

    while (next == NEXT_CREATE || next == NEXT_WATCH) {
        if (next == NEXT_CREATE && !create(guest))
            next = NEXT_FAIL;
        else
            next = watch(guest);
    }
    if (dump_runs(guest, 0)) {
        printf("vicover: waiting for the dump to end\n");
        dump_runs(guest, VICOVER_FOREVER);
    }
    return next;
}

/* The text of a file, which ends with a NUL. */
static const char *read_text(const char *path)
{
    static char text[MAX_CONFIG_BYTES + 1];
    FILE *file = fopen(path, "re");
    size_t length;

    if (!file)
        err(1, "%s", path);
    length = fread(text, 1, sizeof(text), file);
    if (ferror(file))
        err(1, "%s", path);
    fclose(file);
    if (length == sizeof(text))
        errx(1, "%s is larger than the %d bytes that a configuration can have", path,
             MAX_CONFIG_BYTES);
    text[length] = '\0';
    return text;
}

/* As vicover.h says: the library may be newer, but not other. */
static void check_library(void)
{
    uint32_t has = vicover_abi_version();

    if (has >> 16 != VICOVER_ABI_VERSION >> 16 || has < VICOVER_ABI_VERSION)
        errx(1, "libvicover has ABI %#x, %#x is needed", has, VICOVER_ABI_VERSION);
}

static const char *parse_arguments(int argc, char **argv, struct guest *guest)
{
    static const struct option longs[] = {
        { "dump-dir", required_argument, NULL, 'd' },
        { "verbose", no_argument, NULL, 'v' },
        { 0 },
    };
    int option, count;

    while ((option = getopt_long(argc, argv, "", longs, NULL)) > 0 && option != '?') {
        if (option == 'd')
            guest->dump_dir = optarg;
        else
            guest->verbose = true;
    }
    count = argc - optind;
    if (option != -1 || count < 1 || count > 2) {
        fprintf(stderr, "usage: toolstack [--verbose] [--dump-dir DIR] CONFIG.json "
                        "[OPTIONS]\n");
        exit(2);
    }
    guest->spec = argv[optind + 1]; /* argv ends with NULL */
    if (guest->spec && vicover_check_options(guest->spec) != VICOVER_OK)
        errx(2, "%s", vicover_last_error());
    return argv[optind];
}

int main(int argc, char **argv)
{
    struct guest guest = { .dump_dir = NULL };
    xentoollog_logger_stdiostream *logger;
    const char *path, *json;
    enum next end;

    setvbuf(stdout, NULL, _IOLBF, 0);
    check_library();
    path = parse_arguments(argc, argv, &guest);
    json = read_text(path);
    logger = xtl_createlogger_stdiostream(stderr, XTL_WARN, 0);
    /* Hotplug scripts are children of libxl's; we have none, and so leave SIGCHLD
     * to libxl, as is its default (libxl_childproc_setmode() changes that). */
    if (!logger || libxl_ctx_alloc(&guest.ctx, LIBXL_VERSION, 0,
                                   (xentoollog_logger *)logger))
        errx(1, "libxl cannot be used: is this a Xen host's dom0?");
    libxl_domain_config_init(&guest.config);
    if (libxl_domain_config_from_json(guest.ctx, &guest.config, json))
        errx(1, "%s is not a configuration as `xl create -n` prints it", path);

    end = live(&guest);

    /* No job is left that would use the context. */
    libxl_domain_config_dispose(&guest.config);
    libxl_ctx_free(guest.ctx);
    xtl_logger_destroy((xentoollog_logger *)logger);
    return end == NEXT_END ? EXIT_SUCCESS : EXIT_FAILURE;
}

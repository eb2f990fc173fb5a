/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A libvicover.so.0 that decides what the test says, and reports on stdout
 * what it was asked. It dumps nothing.
 *
 *   DOUBLE_OUTCOME    "adopted", "untouched", "dirty" or "declined"; "restart", "destroy"
 *                     or "preserve" for a guest that keeps crashing
 *   DOUBLE_LEAVES_OUT  set: there are to be no dumps of crashes
 *   DOUBLE_BUSY       how often a wait with a timeout finds a job running;
 *                     a wait without one always ends it. A second job meanwhile
 *                     is refused, unless the options say "on_recrash=queue"
 *   DOUBLE_SIGNAL     number of a signal that xl gets once, while it waits for a
 *                     dump of a running domain
 *   DOUBLE_ELAPSED    how old such a dump says it is, in ms
 *
 *   DOUBLE_DECLINED   why it says beforehand that it would decline a guest
 *   DOUBLE_NO_DUMP    why it says beforehand that there would be no dump; with
 *                     either, it also says what it was asked
 *
 *   DOUBLE_INTERRUPTED  set: it knows of a crash of web1, domain 1, whose xl was
 *                     killed, until somebody goes on with that
 *
 * -DDOUBLE_XEN=... says for which Xen it is, -DDOUBLE_ABI=... builds it with another
 * ABI version.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libxl.h>
#include <vicover.h>

#ifndef DOUBLE_ABI
#define DOUBLE_ABI VICOVER_ABI_VERSION
#endif

#ifndef DOUBLE_XEN
#define DOUBLE_XEN 0 /* of no Xen, for callers that do not ask */
#endif

static vicover_job last_job = 6;
static vicover_outcome outcome;
static uint32_t next_recovery = 101;
static int busy;
static const char *dump_file; /* of a dump of a running domain; NULL: none */
static bool cancelled;
static bool to_sink; /* a FIFO, which has no path */

/* What the library says of a failure, once and when it happens. */
static vicover_log_fn log_fn;
static void *log_user;

static void say_failure(const char *what)
{
    log_fn(log_user, VICOVER_LOG_ERROR, what);
}

static int number(const char *name)
{
    return getenv(name) ? atoi(getenv(name)) : 0;
}

uint32_t vicover_abi_version(void) { return DOUBLE_ABI; }
uint32_t vicover_xen_version(void) { return DOUBLE_XEN; }
const char *vicover_last_error(void) { return "the double's reason"; }

vicover_status vicover_check_options(const char *spec)
{
    printf("library: check %s\n", spec);
    fflush(stdout);
    return strstr(spec, "bad") ? VICOVER_ERR_OPTION : VICOVER_OK;
}

static void say_found(char *text, size_t size, const char *name)
{
    snprintf(text, size, "%s", getenv(name) ? getenv(name) : "");
}

vicover_status vicover_check_domain(const struct vicover_options *options,
                                    const struct vicover_domain *domain,
                                    struct vicover_preflight *found)
{
    if (options->struct_size != sizeof(*options) ||
        domain->struct_size != sizeof(*domain) || !domain->ctx ||
        found->struct_size != sizeof(*found) || domain->domid)
        return VICOVER_ERR_STRUCT_SIZE;

    if (getenv("DOUBLE_DECLINED") || getenv("DOUBLE_NO_DUMP")) {
        printf("library: look at %s with %d disk(s), options %s, to %s\n",
               domain->config->c_info.name, domain->config->num_disks,
               options->spec ? options->spec : "(none)",
               options->dump_dir ? options->dump_dir : "where the host's go");
        fflush(stdout);
    }
    say_found(found->declined, sizeof(found->declined), "DOUBLE_DECLINED");
    say_found(found->no_dump, sizeof(found->no_dump), "DOUBLE_NO_DUMP");
    return VICOVER_OK;
}

vicover_status vicover_keep_standby(const struct vicover_options *options,
                                    const struct vicover_domain *domain,
                                    vicover_job *job)
{
    *job = 0;
    if (!options->spec || !strstr(options->spec, "standby=1"))
        return VICOVER_OK;
    if (domain->struct_size != sizeof(*domain) || !domain->ctx)
        return VICOVER_ERR_STRUCT_SIZE;
    *job = ++last_job;
    printf("library: keep a standby for domain %u as job %u\n", domain->domid,
           (unsigned)*job);
    fflush(stdout);
    return VICOVER_OK;
}

vicover_status vicover_cancel(vicover_job job)
{
    printf("library: cancel job %u\n", (unsigned)job);
    fflush(stdout);
    if (dump_file) {
        say_failure("it is a double");
        cancelled = true;
        busy = 0;
    }
    return VICOVER_OK;
}

static vicover_outcome wanted_outcome(const char *text)
{
    return !strcmp(text, "adopted") ? VICOVER_OUTCOME_ADOPTED :
           !strcmp(text, "untouched") ? VICOVER_OUTCOME_UNTOUCHED :
           !strcmp(text, "restart") ? VICOVER_OUTCOME_RESTART :
           !strcmp(text, "destroy") ? VICOVER_OUTCOME_DESTROY :
           !strcmp(text, "preserve") ? VICOVER_OUTCOME_PRESERVE :
                                       VICOVER_OUTCOME_DIRTY;
}

static bool is_given_up(void)
{
    return outcome >= VICOVER_OUTCOME_RESTART;
}

static bool is_dumped(void)
{
    return !is_given_up() && !getenv("DOUBLE_LEAVES_OUT");
}

vicover_status vicover_recover(const struct vicover_options *options,
                               const struct vicover_crash *crash,
                               vicover_job *job)
{
    const char *text = getenv("DOUBLE_OUTCOME");

    if (options->struct_size != sizeof(*options) ||
        crash->struct_size != sizeof(*crash) || !crash->ctx)
        return VICOVER_ERR_STRUCT_SIZE;

    printf("library: recover %s, domain %u with %d disk(s), options %s, to %s\n",
           options->name, crash->domid, crash->config->num_disks,
           options->spec ? options->spec : "(none)",
           options->dump_dir ? options->dump_dir : "where the host's go");
    fflush(stdout);
    if (crash->standby) {
        printf("library: with the standby of job %u\n",
               (unsigned)crash->standby);
        fflush(stdout);
    }
    if (crash->flags & VICOVER_CRASH_IF_PANICKED) {
        printf("library: only if it has panicked\n");
        fflush(stdout);
    }
    if (!strcmp(text, "declined"))
        return VICOVER_ERR_UNSUPPORTED;
    if (!strcmp(text, "not crashed"))
        return VICOVER_ERR_NOT_CRASHED;
    if (busy && !strstr(options->spec, "on_recrash=queue"))
        return VICOVER_ERR_BUSY;

    options->log(options->log_user, VICOVER_LOG_DEBUG, "not for everyone");
    options->log(options->log_user, VICOVER_LOG_WARN, "only a double");
    log_fn = options->log;
    log_user = options->log_user;
    to_sink = options->spec && strstr(options->spec, "sink");
    outcome = wanted_outcome(text);
    if (outcome != VICOVER_OUTCOME_ADOPTED)
        say_failure("it is a double");
    busy = number("DOUBLE_BUSY");
    *job = ++last_job;
    return VICOVER_OK;
}

vicover_status vicover_find_interrupted(const char *journal_dir, const char *guest,
                                        int64_t timeout_ms,
                                        struct vicover_interrupted *found)
{
    if (found->struct_size != sizeof(*found) || journal_dir || timeout_ms)
        return VICOVER_ERR_STRUCT_SIZE;
    if (!getenv("DOUBLE_INTERRUPTED") || (guest && strcmp(guest, "web1")))
        return VICOVER_ERR_TIMEOUT;
    found->domid = 1;
    strcpy(found->guest, "web1");
    strcpy(found->journal, "/journal");
    return VICOVER_OK;
}

vicover_status vicover_resume(const struct vicover_options *options,
                              const struct vicover_interrupted *interrupted,
                              const struct vicover_crash *crash,
                              vicover_job *job)
{
    if (options->struct_size != sizeof(*options) || options->spec ||
        options->name || options->dump_dir ||
        interrupted->struct_size != sizeof(*interrupted) ||
        crash->struct_size != sizeof(*crash) || !crash->ctx || crash->standby)
        return VICOVER_ERR_STRUCT_SIZE;

    printf("library: resume %s, domain %u, by %s\n", interrupted->guest,
           crash->domid, interrupted->journal);
    fflush(stdout);
    if (!strcmp(getenv("DOUBLE_OUTCOME"), "declined"))
        return VICOVER_ERR_UNSUPPORTED;
    unsetenv("DOUBLE_INTERRUPTED");
    crash->config->c_info.name = strdup("web1");
    crash->config->c_info.type = LIBXL_DOMAIN_TYPE_PVH;
    log_fn = options->log;
    log_user = options->log_user;
    outcome = wanted_outcome(getenv("DOUBLE_OUTCOME"));
    if (outcome != VICOVER_OUTCOME_ADOPTED)
        say_failure("it is a double");
    *job = ++last_job;
    return VICOVER_OK;
}

vicover_status vicover_dump_domain(const struct vicover_options *options,
                                   const struct vicover_domain *domain,
                                   vicover_job *job)
{
    if (options->struct_size != sizeof(*options) ||
        domain->struct_size != sizeof(*domain) || !domain->ctx ||
        !domain->config)
        return VICOVER_ERR_STRUCT_SIZE;

    printf("library: dump %s, domain %u, options %s, to %s\n", options->name,
           domain->domid, options->spec ? options->spec : "(none)",
           options->dump_file);
    fflush(stdout);
    if (!strcmp(options->dump_file, "file-there"))
        return VICOVER_ERR_IO;

    options->log(options->log_user, VICOVER_LOG_INFO, "for those who want it");
    options->log(options->log_user, VICOVER_LOG_WARN, "only a double");
    log_fn = options->log;
    log_user = options->log_user;
    dump_file = strdup(options->dump_file);
    busy = number("DOUBLE_BUSY");
    *job = ++last_job;
    return VICOVER_OK;
}

vicover_status vicover_wait(vicover_job job, vicover_until until,
                            int64_t timeout_ms)
{
    if (job > last_job)
        return VICOVER_ERR_HANDLE;
    if (dump_file && number("DOUBLE_SIGNAL")) {
        kill(getpid(), number("DOUBLE_SIGNAL"));
        unsetenv("DOUBLE_SIGNAL");
    }
    if (until == VICOVER_UNTIL_DONE && timeout_ms != VICOVER_FOREVER && busy) {
        busy--;
        return VICOVER_ERR_TIMEOUT;
    }
    if (until == VICOVER_UNTIL_DONE)
        busy = 0;
    return VICOVER_OK;
}

vicover_status vicover_poll(vicover_job job, struct vicover_progress *progress)
{
    progress->outcome = outcome;
    if (outcome == VICOVER_OUTCOME_ADOPTED)
        progress->recovery_domid = next_recovery++;
    if (to_sink && is_dumped())
        progress->dump_bytes = 5 << 20;
    if (dump_file) {
        progress->pages_total = 1000;
        progress->pages_planned = 400;
        progress->pages_dumped = 100;
        progress->dump_bytes = 5 << 20;
        progress->elapsed_ms = number("DOUBLE_ELAPSED");
    }
    return job <= last_job ? VICOVER_OK : VICOVER_ERR_HANDLE;
}

vicover_status vicover_job_error(vicover_job job, char *buffer, size_t size)
{
    bool fine = dump_file ? !cancelled :
                            outcome == VICOVER_OUTCOME_ADOPTED || is_given_up();

    snprintf(buffer, size, "%s", fine ? "" : "it is a double");
    return VICOVER_OK;
}

vicover_status vicover_dump_path(vicover_job job, char *buffer, size_t size)
{
    if (dump_file)
        snprintf(buffer, size, "%s%s", dump_file,
                 cancelled ? ".incomplete" : "");
    else
        snprintf(buffer, size, "%s",
                 outcome == VICOVER_OUTCOME_UNTOUCHED || to_sink || !is_dumped()
                     ? "" : "/dump");
    return VICOVER_OK;
}

vicover_status vicover_free(vicover_job job)
{
    printf("library: free job %u\n", (unsigned)job);
    fflush(stdout);
    return job <= last_job ? VICOVER_OK : VICOVER_ERR_HANDLE;
}

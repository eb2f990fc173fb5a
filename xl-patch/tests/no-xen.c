/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Preloaded into xl, or another toolstack, stands in for the parts of Xen that a
 * monitor of one domain talks to, so that it runs where there is no hypervisor.
 * libxl's configuration code is the real one: a created domain's configuration
 * is kept as libxl's own JSON, and read back from that.
 *
 *   NO_XEN_EVENTS     what happens to the watched domain: "crash", "watchdog",
 *                     "reboot" or "poweroff", separated by commas
 *   NO_XEN_UPDATE     configuration file given to `xl config-update` meanwhile
 *   NO_XEN_FREE       memory free at first, in MiB; grows by 64 each time xl asks
 *
 * Every call that changes or watches something is one line on stdout.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libxl.h>
#include <libxl_utils.h>

#define KIB_PER_MIB 1024

static uint32_t last_domid;
static uint32_t watched_domid;
static uint32_t stale_domid; /* watched no more, with an event left; 0: none */
static char *stored_config;

__attribute__((format(printf, 1, 2)))
static void note(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    printf("xen: ");
    vprintf(fmt, ap);
    putchar('\n');
    va_end(ap);
    fflush(stdout);
}

/* What libxl_ctx_alloc() and xl's start-up need. */

void *xc_interface_open(void *logger, void *dombuild_logger, unsigned flags)
{
    return &last_domid;
}

int xc_interface_close(void *xch) { return 0; }
int xc_get_max_cpus(void *xch) { return 2; }
void *xs_open(unsigned long flags) { return &last_domid; }
void xs_close(void *xsh) { }
unsigned int sleep(unsigned int seconds) { return 0; }

int libxl_get_physinfo(libxl_ctx *ctx, libxl_physinfo *info)
{
    return 0;
}

const libxl_version_info *libxl_get_version_info(libxl_ctx *ctx)
{
    static libxl_version_info info;

    info.commandline = "dom0_mem=1024M,max:1024M";
    return &info;
}

char *libxl_domid_to_name(libxl_ctx *ctx, uint32_t domid)
{
    return strdup("web1");
}

/* The only domain is called web1 and is number 1. */
int libxl_domain_qualifier_to_domid(libxl_ctx *ctx, const char *name,
                                    uint32_t *domid)
{
    if (strcmp(name, "web1") && !strspn(name, "0123456789"))
        return ERROR_INVAL;
    *domid = strcmp(name, "web1") ? strtoul(name, NULL, 10) : 1;
    return 0;
}

int libxl_domain_info(libxl_ctx *ctx, libxl_dominfo *info, uint32_t domid)
{
    return domid == 1 ? 0 : ERROR_DOMAIN_NOTFOUND;
}

/* Memory */

int libxl_domain_need_memory(libxl_ctx *ctx, libxl_domain_config *config,
                             uint32_t domid, uint64_t *need_memkb)
{
    *need_memkb = config->b_info.max_memkb;
    return 0;
}

int libxl_get_free_memory(libxl_ctx *ctx, uint64_t *free_memkb)
{
    static uint64_t mib;
    const char *at_first = getenv("NO_XEN_FREE");

    if (!mib)
        mib = at_first ? strtoull(at_first, NULL, 10) : 4096;
    *free_memkb = mib * KIB_PER_MIB;
    note("%llu MiB are free", (unsigned long long)mib);
    mib += 64;
    return 0;
}

/* Domains */

int libxl_domain_create_new(libxl_ctx *ctx, libxl_domain_config *config,
                            uint32_t *domid, const libxl_asyncop_how *ao_how,
                            const libxl_asyncprogress_how *console)
{
    *domid = ++last_domid;
    free(stored_config);
    stored_config = libxl_domain_config_to_json(ctx, config);
    note("create %s as %u with %d disk(s)", config->c_info.name, *domid,
         config->num_disks);
    return 0;
}

int libxl_domain_unpause(libxl_ctx *ctx, uint32_t domid,
                         const libxl_asyncop_how *ao_how)
{
    note("unpause %u", domid);
    return 0;
}

int libxl_domain_destroy(libxl_ctx *ctx, uint32_t domid,
                         const libxl_asyncop_how *ao_how)
{
    note("destroy %u", domid);
    return 0;
}

int libxl_domain_core_dump(libxl_ctx *ctx, uint32_t domid, const char *file,
                           const libxl_asyncop_how *ao_how)
{
    note("dump %u to %s", domid, file);
    return 0;
}

int libxl_retrieve_domain_configuration(libxl_ctx *ctx, uint32_t domid,
                                        libxl_domain_config *config,
                                        const libxl_asyncop_how *ao_how)
{
    note("read the configuration of %u", domid);
    if (!stored_config) {
        config->c_info.name = strdup("web1");
        return 0;
    }
    return libxl_domain_config_from_json(ctx, config, stored_config);
}

int libxl_userdata_retrieve(libxl_ctx *ctx, uint32_t domid, const char *id,
                            uint8_t **data, int *length)
{
    const char *update = getenv("NO_XEN_UPDATE");

    *data = NULL;
    *length = 0;
    if (!update) {
        errno = ENOENT;
        return ERROR_FAIL;
    }
    return libxl_read_file_contents(ctx, update, (void **)data, length);
}

int libxl_userdata_store(libxl_ctx *ctx, uint32_t domid, const char *id,
                         const uint8_t *data, int length)
{
    note("keep the configuration for %u", domid);
    return 0;
}

int libxl_userdata_unlink(libxl_ctx *ctx, uint32_t domid, const char *id)
{
    note("use the updated configuration of %u", domid);
    return unsetenv("NO_XEN_UPDATE");
}

/* Events */

int libxl_evenable_domain_death(libxl_ctx *ctx, uint32_t domid,
                                libxl_ev_user user,
                                libxl_evgen_domain_death **evgen)
{
    watched_domid = domid;
    *evgen = (void *)&watched_domid;
    note("watch %u", domid);
    return 0;
}

void libxl_evdisable_domain_death(libxl_ctx *ctx,
                                  libxl_evgen_domain_death *evgen)
{
    note("watch %u no more", watched_domid);
    stale_domid = watched_domid;
}

static libxl_event *new_event(libxl_event_type type, uint32_t domid)
{
    libxl_event *event = malloc(sizeof(*event));

    libxl_event_init(event);
    libxl_event_init_type(event, type);
    event->domid = domid;
    return event;
}

/* One event of a domain that is watched no more is still there. */
int libxl_event_check(libxl_ctx *ctx, libxl_event **event, uint64_t mask,
                      libxl_event_predicate *predicate, void *user)
{
    if (!stale_domid)
        return ERROR_NOT_READY;
    *event = new_event(LIBXL_EVENT_TYPE_DOMAIN_DEATH, stale_domid);
    stale_domid = 0;
    return 0;
}

int libxl_event_wait(libxl_ctx *ctx, libxl_event **event, uint64_t mask,
                     libxl_event_predicate *predicate, void *user)
{
    static char *rest;
    libxl_shutdown_reason reason;
    char *what;

    if (stale_domid)
        return libxl_event_check(ctx, event, mask, predicate, user);
    if (!rest)
        rest = strdup(getenv("NO_XEN_EVENTS"));
    what = strsep(&rest, ",");

    note("%u: %s", watched_domid, what);
    if (libxl_shutdown_reason_from_string(what, &reason))
        abort();
    *event = new_event(LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN, watched_domid);
    (*event)->u.domain_shutdown.shutdown_reason = reason;
    return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Watches the host from dom0 through libxenctrl, at little cost.
 *
 *   watch [--interval-ms N] [--csv FILE]
 *
 * Every interval it asks for the host's free pages and for all domains, and
 * writes an event for each change: domain_created, domain_unpaused,
 * domain_crashed (or restarted; with the free pages just before that),
 * domain_shutdown, domain_gone. It follows the peak resident set (VmHWM) of every process called
 * xl or toolstack. On SIGUSR1 it writes free_min (the least free memory since the crash, the
 * pages that domains claim beyond what they have, and xl's peak) and domain_info
 * for each domain; on SIGTERM it writes these and ends.
 * --csv gets a line whenever the free pages or a domain's pages change.
 */
#include <ctype.h>
#include <dirent.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <xenctrl.h>

#include "event.h"

#define MAX_DOMAINS 64
/* Seldom: it opens a file of every process. */
#define PEAK_EVERY_S 2.0

struct seen {
    uint32_t domid;
    uint64_t tot_pages;
    bool present, unpaused, shut_down;
};

static struct seen known[MAX_DOMAINS];
static unsigned known_count;
static uint64_t free_pages, free_before, free_min = UINT64_MAX;
static uint64_t claimed, claimed_most;
static double free_min_s, last_peak_s;
static bool crashed;
static unsigned long xl_peak_kib;
static xc_domaininfo_t info[MAX_DOMAINS];
static int info_count;
static FILE *csv;
static volatile sig_atomic_t report_requested, stop_requested;

static void on_signal(int signal_number)
{
    if (signal_number == SIGTERM)
        stop_requested = 1;
    report_requested = 1;
}

static struct seen *find_or_add(const xc_domaininfo_t *one, bool *added)
{
    unsigned i;

    for (i = 0; i < known_count; i++) {
        if (known[i].domid == one->domain)
            return &known[i];
    }
    if (known_count == MAX_DOMAINS) {
        fprintf(stderr, "watch: more than %d domains\n", MAX_DOMAINS);
        exit(1);
    }
    *added = true;
    known[known_count] = (struct seen){ .domid = one->domain };
    return &known[known_count++];
}

static unsigned shutdown_reason(const xc_domaininfo_t *one)
{
    return one->flags >> XEN_DOMINF_shutdownshift & XEN_DOMINF_shutdownmask;
}

static void look_at_domain(const xc_domaininfo_t *one)
{
    bool added = false;
    struct seen *domain = find_or_add(one, &added);
    bool unpaused = !(one->flags & XEN_DOMINF_paused);
    bool shut_down = one->flags & XEN_DOMINF_shutdown;

    domain->present = true;
    if (added)
        event("domain_created", "{\"domid\":%u,\"free_pages\":%lu}",
              one->domain, free_pages);
    if (unpaused && !domain->unpaused && !shut_down)
        event("domain_unpaused", "{\"domid\":%u,\"tot_pages\":%lu,"
              "\"max_pages\":%lu,\"free_pages\":%lu}",
              one->domain, one->tot_pages, one->max_pages, free_pages);
    domain->unpaused = unpaused;
    if (shut_down && !domain->shut_down) {
        unsigned reason = shutdown_reason(one);

        domain->shut_down = true;
        /* A guest whose panic resets the machine has restarted, for all Xen knows. */
        if (reason == SHUTDOWN_crash || reason == SHUTDOWN_reboot) {
            crashed = true;
            free_min = free_pages;
            free_min_s = monotonic_s();
            event("domain_crashed", "{\"domid\":%u,\"tot_pages\":%lu,"
                  "\"free_pages_before\":%lu,\"free_pages\":%lu}",
                  one->domain, one->tot_pages, free_before, free_pages);
        } else {
            event("domain_shutdown", "{\"domid\":%u,\"reason\":%u}",
                  one->domain, reason);
        }
    }
    if (csv && (added || domain->tot_pages != one->tot_pages))
        fprintf(csv, "%.3f,dom%u,%lu\n", monotonic_s(), one->domain,
                one->tot_pages);
    domain->tot_pages = one->tot_pages;
}

static void forget_the_gone(void)
{
    unsigned i, kept = 0;

    for (i = 0; i < known_count; i++) {
        if (known[i].present) {
            known[kept] = known[i];
            known[kept++].present = false;
        } else {
            event("domain_gone", "{\"domid\":%u,\"free_pages\":%lu}",
                  known[i].domid, free_pages);
        }
    }
    known_count = kept;
}

static void sample(xc_interface *xch)
{
    xc_physinfo_t physinfo = { 0 };
    int i;

    if (xc_physinfo(xch, &physinfo) < 0 ||
        (info_count = xc_domain_getinfolist(xch, 0, MAX_DOMAINS, info)) < 0) {
        perror("watch: libxenctrl");
        exit(1);
    }
    if (csv && physinfo.free_pages != free_pages)
        fprintf(csv, "%.3f,free,%lu\n", monotonic_s(), physinfo.free_pages);
    if (!crashed)
        free_before = free_pages ? free_pages : physinfo.free_pages;
    free_pages = physinfo.free_pages;
    if (physinfo.outstanding_pages > claimed_most)
        claimed_most = physinfo.outstanding_pages;
    claimed = physinfo.outstanding_pages;
    if (crashed && free_pages < free_min) {
        free_min = free_pages;
        free_min_s = monotonic_s();
    }
    for (i = 0; i < info_count; i++)
        look_at_domain(&info[i]);
    forget_the_gone();
}

/* VmHWM only grows, so the last reading before a process ends is its peak. */
static void sample_peak_of(const char *pid)
{
    char path[300], line[128];
    unsigned long kib;
    FILE *status;

    snprintf(path, sizeof path, "/proc/%s/status", pid);
    status = fopen(path, "re");
    if (!status)
        return;
    while (fgets(line, sizeof line, status)) {
        if (strncmp(line, "Name:", 5) == 0 && strcmp(line, "Name:\txl\n") != 0 &&
            strcmp(line, "Name:\ttoolstack\n") != 0)
            break;
        if (sscanf(line, "VmHWM: %lu kB", &kib) == 1 && kib > xl_peak_kib)
            xl_peak_kib = kib;
    }
    fclose(status);
}

static void sample_peak(void)
{
    DIR *proc = opendir("/proc");
    struct dirent *entry;

    if (!proc) {
        perror("watch: /proc");
        exit(1);
    }
    while ((entry = readdir(proc))) {
        if (isdigit((unsigned char)entry->d_name[0]))
            sample_peak_of(entry->d_name);
    }
    closedir(proc);
}

/* Populate-on-demand: entries not backed yet, and the cache behind them. */
static void report_domain(xc_interface *xch, const xc_domaininfo_t *one)
{
    uint64_t total = 0, cache = 0, entries = 0;

    if (one->domain != 0 && one->flags & XEN_DOMINF_hvm_guest)
        xc_domain_get_pod_target(xch, one->domain, &total, &cache, &entries);
    event("domain_info", "{\"domid\":%u,\"tot_pages\":%lu,\"max_pages\":%lu,"
          "\"vcpus\":%u,\"vcpus_online\":%u,\"paused\":%s,\"shut_down\":%s,"
          "\"pod_cache_pages\":%lu,\"pod_entries\":%lu}",
          one->domain, one->tot_pages, one->max_pages,
          one->max_vcpu_id + 1, one->nr_online_vcpus,
          one->flags & XEN_DOMINF_paused ? "true" : "false",
          one->flags & XEN_DOMINF_shutdown ? "true" : "false",
          cache, entries);
}

static void report(xc_interface *xch)
{
    int i;

    for (i = 0; i < info_count; i++)
        report_domain(xch, &info[i]);
    event("free_min", "{\"free_pages_before\":%lu,\"free_pages_min\":%lu,"
          "\"min_s\":%.3f,\"free_pages\":%lu,\"xl_peak_rss_bytes\":%lu,"
          "\"claimed_pages\":%lu,\"claimed_pages_most\":%lu}",
          free_before, crashed ? free_min : free_pages, free_min_s, free_pages,
          xl_peak_kib * 1024, claimed, claimed_most);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "interval-ms", required_argument, NULL, 'i' },
        { "csv", required_argument, NULL, 'c' },
        { 0 },
    };
    struct sigaction action = { .sa_handler = on_signal };
    int option, interval_ms = 20;
    xc_interface *xch;

    while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
        switch (option) {
        case 'i': interval_ms = atoi(optarg); break;
        case 'c':
            csv = fopen(optarg, "we");
            if (!csv) {
                perror(optarg);
                return 1;
            }
            fprintf(csv, "seconds,what,pages\n");
            break;
        default: return 2;
        }
    }
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    xch = xc_interface_open(NULL, NULL, 0);
    if (!xch) {
        perror("watch: xc_interface_open");
        return 1;
    }
    while (!stop_requested) {
        sample(xch);
        if (monotonic_s() - last_peak_s >= PEAK_EVERY_S) {
            last_peak_s = monotonic_s();
            sample_peak();
        }
        if (report_requested) {
            report_requested = 0;
            report(xch);
        }
        poll(NULL, 0, interval_ms);
    }
    report(xch);
    xc_interface_close(xch);
    return 0;
}

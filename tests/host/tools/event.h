/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Event lines: "EVT <seconds> <name> <json>\n", one write() each so that
 * lines of several programs on the same port never mix. Seconds are
 * CLOCK_MONOTONIC, the one clock all of dom0 shares.
 */
#ifndef EVENT_H
#define EVENT_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* A line's: the driver of the port writes no more at once (port_fops_write()). */
#define MAX_EVENT (32 << 10)

static double monotonic_s(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* Writes to standard output, which the scenario points at the event port. */
__attribute__((format(printf, 2, 3)))
static void event(const char *name, const char *json_format, ...)
{
    static char line[MAX_EVENT];
    va_list ap;
    int n = snprintf(line, sizeof line, "EVT %.3f %s ", monotonic_s(), name);

    va_start(ap, json_format);
    n += vsnprintf(line + n, sizeof line - n, json_format, ap);
    va_end(ap);
    if (n >= (int)sizeof line - 1) {
        fprintf(stderr, "event %s is too long\n", name);
        exit(1);
    }
    line[n++] = '\n';
    if (write(STDOUT_FILENO, line, n) != n) {
        perror("event port");
        exit(1);
    }
}

#endif

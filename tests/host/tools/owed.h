/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a service owes its client: numbered writes are committed one at a time,
 * each until it is acknowledged, so that 1..acked must all be stored. Events:
 * first_ack, down (first failure after an acknowledged write), up (first one
 * after that), acked (every so many writes) and, on SIGTERM, verified.
 */
#ifndef OWED_H
#define OWED_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "event.h"

#define PACE_MS 20
/* After a failure. Every attempt costs a recovering database a process of its own:
 * with one every 40 ms, half of an emulated processor. */
#define RETRY_MS 100
#define ACKED_EVERY 25

/* The numbers that the service says it stores. */
struct stored {
    bool *present;
    unsigned long acked, records;
};

struct service {
    /* True when the service acknowledged the write; it may be sent twice. */
    bool (*commit)(unsigned long number);
    /* note_stored() for every number that is there; false if not all came. */
    bool (*list)(struct stored *stored);
    void (*disconnect)(void);
};

static volatile sig_atomic_t stop_requested;

static void on_term(int signal_number)
{
    (void)signal_number;
    stop_requested = 1;
}

static void pause_ms(int ms)
{
    poll(NULL, 0, ms);
}

static void note_stored(struct stored *stored, unsigned long number)
{
    stored->records++;
    if (number >= 1 && number <= stored->acked)
        stored->present[number] = true;
}

static bool verify(const struct service *service, unsigned long acked)
{
    struct stored stored = { .present = calloc(acked + 1, sizeof(bool)),
                             .acked = acked };
    unsigned long number, lost = 0, first_lost = 0;
    bool complete;

    if (!stored.present) {
        perror("verify");
        exit(1);
    }
    complete = service->list(&stored);
    for (number = 1; number <= acked; number++) {
        if (!stored.present[number] && lost++ == 0)
            first_lost = number;
    }
    event("verified", "{\"acked\":%lu,\"stored\":%lu,\"lost\":%lu,"
          "\"first_lost\":%lu,\"list_complete\":%s}",
          acked, stored.records, lost, first_lost, complete ? "true" : "false");
    free(stored.present);
    return complete && lost == 0;
}

/* Until SIGTERM; the status to exit with. */
static int commit_and_verify(const struct service *service)
{
    /* No SA_RESTART: a blocked poll must end. */
    struct sigaction term = { .sa_handler = on_term };
    unsigned long number = 1;
    double last_ack_s = 0;
    bool down = false;

    sigaction(SIGTERM, &term, NULL);
    while (!stop_requested) {
        if (service->commit(number)) {
            double now_s = monotonic_s();

            if (number == 1)
                event("first_ack", "{\"number\":1}");
            if (number % ACKED_EVERY == 0)
                event("acked", "{\"number\":%lu}", number);
            if (down)
                event("up", "{\"number\":%lu,\"last_ack_s\":%.3f,"
                      "\"first_ack_s\":%.3f,\"down_s\":%.3f}",
                      number, last_ack_s, now_s, now_s - last_ack_s);
            down = false;
            last_ack_s = now_s;
            number++;
            pause_ms(PACE_MS);
            continue;
        }
        if (number > 1 && !down) {
            down = true;
            event("down", "{\"number\":%lu,\"last_ack_s\":%.3f}",
                  number, last_ack_s);
        }
        pause_ms(RETRY_MS);
    }
    service->disconnect();
    return verify(service, number - 1) ? 0 : 1;
}

#endif

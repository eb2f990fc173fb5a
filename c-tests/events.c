/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Events, the log and the socket tell the same: events DIRECTORY. Prints the records
 * that came through the socket. */
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "check.h"

#define MOST 64
#define LONGEST 4096

static char messages[MOST][LONGEST], records[MOST][LONGEST];
static int events, lines;

static void on_event(void *user, const struct vicover_event *happened)
{
    CHECK(user == messages);
    CHECK(happened->struct_size == sizeof(*happened) && !happened->reserved);
    CHECK(events < MOST && strlen(happened->record) < LONGEST);
    CHECK(strstr(happened->record, happened->about));
    CHECK(strstr(happened->record, happened->event));
    strcpy(messages[events], happened->message);
    strcpy(records[events++], happened->record);
}

/* Comes after the event that it is the line of. */
static void log_line(void *user, vicover_level level, const char *message)
{
    CHECK(user == records);
    CHECK(level >= VICOVER_LOG_ERROR && level <= VICOVER_LOG_DEBUG);
    CHECK(events == ++lines && !strcmp(message, messages[events - 1]));
}

static vicover_status dump(struct vicover_options *options)
{
    struct vicover_image image = { .struct_size = sizeof(image), .memory_bytes = 4 << 20 };
    struct vicover_progress progress = { .struct_size = sizeof(progress) };
    vicover_job job;

    CHECK(vicover_dump_image(options, &image, &job) == VICOVER_OK);
    CHECK(vicover_wait(job, VICOVER_UNTIL_DONE, 60000) == VICOVER_OK);
    CHECK(vicover_poll(job, &progress) == VICOVER_OK);
    CHECK(vicover_free(job) == VICOVER_OK);
    return progress.status;
}

int main(int argc, char **argv)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    char spec[128], received[LONGEST];
    struct vicover_options options = {
        .struct_size = sizeof(options),
        .spec = spec,
        .name = "events \"x\"",
        .dump_dir = argc > 1 ? argv[1] : ".",
        .log = log_line,
        .log_user = records,
        .event = on_event,
        .event_user = messages,
    };
    int listener = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    snprintf(at.sun_path, sizeof(at.sun_path), "%s/listener", options.dump_dir);
    snprintf(spec, sizeof(spec), "events=%s", at.sun_path);
    CHECK(bind(listener, (struct sockaddr *)&at, sizeof(at)) == 0);
    CHECK(dump(&options) == VICOVER_OK);
    CHECK(lines == events && events > 4);
    /* What the socket holds is taken first come, first served; nobody waited. */
    for (int number = 0; number < events; number++) {
        ssize_t length = recv(listener, received, sizeof(received) - 1, MSG_DONTWAIT);

        if (length < 0)
            break;
        received[length] = '\0';
        CHECK(!strcmp(received, records[number]));
        puts(received);
    }

    /* Nobody listens: that is told, once. */
    close(listener);
    events = lines = 0;
    CHECK(dump(&options) == VICOVER_OK);
    int told = 0;
    for (int number = 0; number < events; number++)
        told += strstr(records[number], "\"event\":\"events_not_taken\"") != NULL;
    CHECK(told == 1);

    /* A program of an older version knows no events. */
    options.struct_size = offsetof(struct vicover_options, event);
    events = 0;
    lines = -1;
    options.log = NULL;
    CHECK(dump(&options) == VICOVER_OK);
    CHECK(events == 0);
    return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Listens where the option `events` says, and writes an event "vicover" for each
 * thing that libvicover tells: vicover-events PATH
 */
#include <err.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "event.h"

/* What a record is told with takes less than the rest. */
#define MAX_RECORD (MAX_EVENT - 100)

int main(int argc, char **argv)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    static char record[MAX_RECORD + 1];
    int listener = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (argc != 2 || strlen(argv[1]) >= sizeof at.sun_path)
        return 2;
    strcpy(at.sun_path, argv[1]);
    if (listener < 0 || bind(listener, (struct sockaddr *)&at, sizeof at))
        err(1, "%s", argv[1]);
    for (;;) {
        ssize_t length = recv(listener, record, sizeof record, MSG_TRUNC);

        if (length < 0)
            err(1, "%s", argv[1]);
        if (length > MAX_RECORD) {
            warnx("a record of %zd bytes is left out", length);
            continue;
        }
        record[length] = '\0';
        event("vicover", "%s", record);
    }
}

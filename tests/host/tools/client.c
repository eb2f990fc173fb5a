/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The service's client, which knows what was promised.
 *
 *   client run ADDRESS PORT          commits numbered writes one at a time, for
 *                                    ever; on SIGTERM lists what the service
 *                                    stores and says how many acknowledged
 *                                    writes are missing (exit 1 if any is)
 *   client check ADDRESS PORT ACKED  says how many of the first ACKED writes are
 *                                    missing, as a client that has gone would
 *   client request ADDRESS PORT SECONDS WORD...
 *                                    sends one request and prints the answer
 *
 * A write counts as acknowledged when its "ok" has been read. See owed.h.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "owed.h"

/* A crashed guest answers nothing at all, so its client must give up soon; a
 * guest whose host is busy dumping may take long to answer. */
#define CONNECT_TIMEOUT_MS 200
#define ANSWER_TIMEOUT_MS 2000
#define LIST_TIMEOUT_MS 30000

static struct sockaddr_in server;
static int connection = -1;

/* A connected socket, or -1. */
static int connect_service(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct pollfd wait = { .fd = fd, .events = POLLOUT };
    int error = 0;
    socklen_t size = sizeof error;

    if (fd < 0)
        return -1;
    if (connect(fd, (struct sockaddr *)&server, sizeof server) < 0 &&
        (errno != EINPROGRESS || poll(&wait, 1, CONNECT_TIMEOUT_MS) != 1 ||
         getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 || error)) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Reads up to a newline (removed); false on timeout, end or overflow. */
static bool read_line(int fd, char *line, size_t size, int timeout_ms)
{
    double deadline = monotonic_s() + timeout_ms / 1e3;
    size_t used = 0;

    while (used < size - 1) {
        int left = (deadline - monotonic_s()) * 1e3;
        struct pollfd wait = { .fd = fd, .events = POLLIN };
        ssize_t n;

        if (left <= 0)
            return false;
        if (poll(&wait, 1, left) < 0 && errno != EINTR)
            return false;
        n = read(fd, line + used, 1);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (n <= 0)
            return false;
        if (line[used] == '\n') {
            line[used] = 0;
            return true;
        }
        used++;
    }
    return false;
}

static bool send_all(int fd, const char *text)
{
    size_t size = strlen(text);

    return send(fd, text, size, MSG_NOSIGNAL) == (ssize_t)size;
}

static void disconnect(void)
{
    if (connection >= 0)
        close(connection);
    connection = -1;
}

static bool put(unsigned long number)
{
    char line[64], expected[64];

    if (connection < 0)
        connection = connect_service();
    if (connection < 0)
        return false;
    snprintf(line, sizeof line, "put %lu\n", number);
    snprintf(expected, sizeof expected, "ok %lu", number);
    if (send_all(connection, line) &&
        read_line(connection, line, sizeof line, ANSWER_TIMEOUT_MS) &&
        strcmp(line, expected) == 0)
        return true;
    disconnect();
    return false;
}

static bool list(struct stored *stored)
{
    int fd = connect_service();
    bool complete = false;
    char line[64];

    if (fd < 0)
        return false;
    if (send_all(fd, "list\n")) {
        while (!complete && read_line(fd, line, sizeof line, LIST_TIMEOUT_MS)) {
            complete = strcmp(line, "end") == 0;
            if (!complete)
                note_stored(stored, strtoul(line, NULL, 10));
        }
    }
    close(fd);
    return complete;
}

static int request(double deadline_s, char **words)
{
    char text[256] = "", line[256];
    double end_s = monotonic_s() + deadline_s;
    int fd;

    for (; *words; words++) {
        strncat(text, *words, sizeof text - strlen(text) - 2);
        strcat(text, words[1] ? " " : "\n");
    }
    while ((fd = connect_service()) < 0) {
        if (monotonic_s() > end_s) {
            fprintf(stderr, "no connection to the service within %.0f s\n",
                    deadline_s);
            return 1;
        }
        pause_ms(PACE_MS);
    }
    if (!send_all(fd, text) ||
        !read_line(fd, line, sizeof line, deadline_s * 1e3)) {
        fprintf(stderr, "no answer to: %s", text);
        return 1;
    }
    puts(line);
    return strncmp(line, "ok", 2) == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    static const struct service service = { put, list, disconnect };

    if (argc < 4 || inet_pton(AF_INET, argv[2], &server.sin_addr) != 1) {
        fprintf(stderr, "usage: client run ADDRESS PORT\n"
                "       client request ADDRESS PORT SECONDS WORD...\n");
        return 2;
    }
    server.sin_family = AF_INET;
    server.sin_port = htons(atoi(argv[3]));
    if (strcmp(argv[1], "request") == 0 && argc > 5)
        return request(atof(argv[4]), argv + 5);
    if (strcmp(argv[1], "check") == 0 && argc == 5)
        return verify(&service, strtoul(argv[4], NULL, 10)) ? 0 : 1;
    return commit_and_verify(&service);
}

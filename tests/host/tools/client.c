/*
 * The service's client, which knows what was promised.
 *
 *   client run ADDRESS PORT          commits numbered writes one at a time, for
 *                                    ever; on SIGTERM lists what the service
 *                                    stores and says how many acknowledged
 *                                    writes are missing (exit 1 if any is)
 *   client request ADDRESS PORT SECONDS WORD...
 *                                    sends one request and prints the answer
 *
 * A write counts as acknowledged when its "ok" has been read. Events: down
 * (first failure after an acknowledged write), up (first one after that), acked
 * (every so many writes) and verified.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#include "event.h"

/* A crashed guest answers nothing at all, so its client must give up soon; a
 * guest whose host is busy dumping may take long to answer. */
#define CONNECT_TIMEOUT_MS 200
#define ANSWER_TIMEOUT_MS 2000
#define LIST_TIMEOUT_MS 30000
#define PACE_MS 20
#define ACKED_EVERY 25

static struct sockaddr_in server;
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

/* One write, committed: true when the service acknowledged it. */
static bool put(int *fd, unsigned long number)
{
    char line[64], expected[64];

    if (*fd < 0)
        *fd = connect_service();
    if (*fd < 0)
        return false;
    snprintf(line, sizeof line, "put %lu\n", number);
    snprintf(expected, sizeof expected, "ok %lu", number);
    if (send_all(*fd, line) &&
        read_line(*fd, line, sizeof line, ANSWER_TIMEOUT_MS) &&
        strcmp(line, expected) == 0)
        return true;
    close(*fd);
    *fd = -1;
    return false;
}

/* Numbers are sent in order and each until acknowledged: 1..acked are owed. */
static bool verify(unsigned long acked)
{
    bool *stored = calloc(acked + 1, sizeof *stored);
    unsigned long number, records = 0, lost = 0, first_lost = 0;
    bool complete = false;
    char line[64];
    int fd = connect_service();

    if (!stored) {
        perror("verify");
        exit(1);
    }
    if (fd >= 0 && send_all(fd, "list\n")) {
        while (read_line(fd, line, sizeof line, LIST_TIMEOUT_MS)) {
            if (strcmp(line, "end") == 0) {
                complete = true;
                break;
            }
            number = strtoul(line, NULL, 10);
            records++;
            if (number >= 1 && number <= acked)
                stored[number] = true;
        }
    }
    for (number = 1; number <= acked; number++) {
        if (!stored[number] && lost++ == 0)
            first_lost = number;
    }
    event("verified", "{\"acked\":%lu,\"stored\":%lu,\"lost\":%lu,"
          "\"first_lost\":%lu,\"list_complete\":%s}",
          acked, records, lost, first_lost, complete ? "true" : "false");
    free(stored);
    return complete && lost == 0;
}

static int run(void)
{
    unsigned long number = 1;
    double last_ack_s = 0;
    bool down = false;
    int fd = -1;

    while (!stop_requested) {
        if (put(&fd, number)) {
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
        } else if (number > 1 && !down) {
            down = true;
            event("down", "{\"number\":%lu,\"last_ack_s\":%.3f}",
                  number, last_ack_s);
        }
        pause_ms(PACE_MS);
    }
    if (fd >= 0)
        close(fd);
    return verify(number - 1) ? 0 : 1;
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
    /* No SA_RESTART: a blocked poll must end. */
    struct sigaction term = { .sa_handler = on_term };

    if (argc < 4 || inet_pton(AF_INET, argv[2], &server.sin_addr) != 1) {
        fprintf(stderr, "usage: client run ADDRESS PORT\n"
                "       client request ADDRESS PORT SECONDS WORD...\n");
        return 2;
    }
    server.sin_family = AF_INET;
    server.sin_port = htons(atoi(argv[3]));
    sigaction(SIGTERM, &term, NULL);
    if (strcmp(argv[1], "request") == 0 && argc > 5)
        return request(atof(argv[4]), argv + 5);
    return run();
}

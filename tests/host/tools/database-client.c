/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The client of a PostgreSQL server: one transaction for each number.
 *
 *   database-client HOST PORT
 *
 * Commits for ever; on SIGTERM reads the table back and says how many
 * acknowledged transactions are missing (exit 1 if any is). See owed.h.
 */
#include <errno.h>

#include <libpq-fe.h>

#include "owed.h"

/* A dead guest answers nothing at all, so its client must give up soon: this is
 * how exactly the end of an outage is seen. Once there is a connection, a server
 * on a busy host may take its time. */
#define CONNECT_TIMEOUT_S 0.1
#define LOGIN_TIMEOUT_S 2
#define ANSWER_TIMEOUT_S 1
#define LIST_TIMEOUT_S 30

static const char *host, *port;
static PGconn *connection;

static void disconnect(void)
{
    PQfinish(connection);
    connection = NULL;
}

/* Waits for the connection's socket; false at the deadline. */
static bool wait_socket(short events, double deadline_s)
{
    struct pollfd wait = { .fd = PQsocket(connection), .events = events };
    int left_ms;

    do {
        left_ms = (deadline_s - monotonic_s()) * 1e3;
        if (left_ms <= 0)
            return false;
    } while (poll(&wait, 1, left_ms) < 0 && errno == EINTR && !stop_requested);
    return wait.revents != 0;
}

/* A connection that the server has accepted and logged in. */
static bool connected(void)
{
    static const char *const names[] = { "host", "port", "user", "dbname",
                                         "sslmode", "gssencmode", NULL };
    const char *const values[] = { host, port, "postgres", "postgres",
                                   "disable", "disable", NULL };
    double begun_s = monotonic_s();
    PostgresPollingStatusType next = PGRES_POLLING_WRITING;

    if (connection)
        return true;
    connection = PQconnectStartParams(names, values, 0);
    if (!connection) {
        perror("database-client");
        exit(1);
    }
    while (PQstatus(connection) != CONNECTION_BAD) {
        bool reached = PQstatus(connection) != CONNECTION_STARTED;

        if (next == PGRES_POLLING_OK)
            return true;
        if (next == PGRES_POLLING_FAILED ||
            !wait_socket(next == PGRES_POLLING_READING ? POLLIN : POLLOUT,
                         begun_s + (reached ? LOGIN_TIMEOUT_S : CONNECT_TIMEOUT_S)))
            break;
        next = PQconnectPoll(connection);
    }
    disconnect();
    return false;
}

/* The whole result of a query, or NULL when it failed or took too long. */
static PGresult *query(const char *text, const char *parameter, double timeout_s)
{
    double deadline_s = monotonic_s() + timeout_s;
    PGresult *result = NULL, *last;

    if (!PQsendQueryParams(connection, text, parameter != NULL, NULL, &parameter,
                           NULL, NULL, 0))
        return NULL;
    for (;;) {
        while (PQisBusy(connection)) {
            if (!wait_socket(POLLIN, deadline_s) || !PQconsumeInput(connection)) {
                PQclear(result);
                return NULL;
            }
        }
        last = PQgetResult(connection);
        if (!last)
            return result;
        PQclear(result);
        result = last;
    }
}

/* A number whose commit was not heard of is sent again: it may be there. */
static bool commit(unsigned long number)
{
    char text[24];
    PGresult *result;
    bool done;

    if (!connected())
        return false;
    snprintf(text, sizeof text, "%lu", number);
    result = query("INSERT INTO writes VALUES ($1) ON CONFLICT DO NOTHING", text,
                   ANSWER_TIMEOUT_S);
    done = PQresultStatus(result) == PGRES_COMMAND_OK;
    PQclear(result);
    if (!done)
        disconnect();
    return done;
}

static bool list(struct stored *stored)
{
    double deadline_s = monotonic_s() + LIST_TIMEOUT_S;
    PGresult *result;
    bool complete;
    int row;

    while (!connected()) {
        if (monotonic_s() > deadline_s)
            return false;
        pause_ms(PACE_MS);
    }
    result = query("SELECT number FROM writes", NULL, LIST_TIMEOUT_S);
    complete = PQresultStatus(result) == PGRES_TUPLES_OK;
    for (row = 0; complete && row < PQntuples(result); row++)
        note_stored(stored, strtoul(PQgetvalue(result, row, 0), NULL, 10));
    PQclear(result);
    disconnect();
    return complete;
}

int main(int argc, char **argv)
{
    static const struct service database = { commit, list, disconnect };

    if (argc != 3) {
        fprintf(stderr, "usage: database-client HOST PORT\n");
        return 2;
    }
    host = argv[1];
    port = argv[2];
    return commit_and_verify(&database);
}

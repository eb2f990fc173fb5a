/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Kills the process that handles a crash, so long after its journal appears.
 *
 *   kill-handler DELAY_MS
 *
 * Writes an event "handler_killed" with the process and what its journal said last, or
 * "handler_done" when the crash was over before.
 */
#include <errno.h>
#include <glob.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "event.h"

#define DIRECTORY "/run/vicover"
#define MOST (1 << 20)

static char text[MOST];

/* The journal there is, read into text; false: none. */
static bool read_journal(void)
{
    glob_t found;
    size_t length = 0;
    FILE *file = NULL;

    if (glob(DIRECTORY "/*.journal", 0, NULL, &found) == 0) {
        file = fopen(found.gl_pathv[0], "re");
        globfree(&found);
    }
    if (file) {
        length = fread(text, 1, sizeof text - 1, file);
        fclose(file);
    }
    text[length] = '\0';
    return length > 0;
}

static void wait_for_journal(void)
{
    char events[4096];
    int watch = inotify_init1(IN_CLOEXEC);

    mkdir(DIRECTORY, 0700);
    if (watch < 0 || inotify_add_watch(watch, DIRECTORY, IN_MOVED_TO) < 0) {
        perror("inotify");
        exit(1);
    }
    while (!read_journal())
        if (read(watch, events, sizeof events) < 0 && errno != EINTR)
            exit(1);
    close(watch);
}

/* What follows the last KEY in text, or NULL. */
static const char *last_after(const char *key)
{
    const char *found = NULL, *at = text;

    while ((at = strstr(at, key)) != NULL)
        found = at += strlen(key);
    return found;
}

int main(int argc, char **argv)
{
    struct timespec delay;
    const char *pid, *entry;
    long delay_ms;

    if (argc != 2)
        return 2;
    delay_ms = strtol(argv[1], NULL, 10);
    wait_for_journal();
    delay.tv_sec = delay_ms / 1000;
    delay.tv_nsec = delay_ms % 1000 * 1000000;
    nanosleep(&delay, NULL);

    pid = read_journal() ? last_after("\"pid\":") : NULL;
    entry = last_after("{\"entry\":\"");
    if (!pid || !entry) {
        event("handler_done", "{\"delay_ms\":%ld}", delay_ms);
        return 0;
    }
    if (kill(strtol(pid, NULL, 10), SIGKILL) < 0) {
        perror("kill");
        return 1;
    }
    event("handler_killed", "{\"delay_ms\":%ld,\"pid\":%ld,\"entry\":\"%.*s\"}",
          delay_ms, strtol(pid, NULL, 10), (int)strcspn(entry, "\""), entry);
    return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Follows xl's log and writes an event for each line: "log" for a line of
 * libvicover's, "xl" for one of xl's own. Of another log, each line is an EVENT.
 *
 *   log-events FILE [EVENT]
 *
 * FILE need not be there yet, and may be replaced by another of its name. A shell
 * that does this starts a process for each line, which takes an emulated processor
 * so long that a handler that says much is slower for it; and tail looks once a
 * second.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "event.h"

#define PREFIX "vicover:"
#define MAX_LINE 2000
#define LOOK_EVERY_MS 20

static char line[MAX_LINE];
static size_t length;
static const char *name; /* of every event, or NULL */

static const char *name_of_line(void)
{
    if (name)
        return name;
    return strncmp(line, PREFIX, strlen(PREFIX)) ? "xl" : "log";
}

/* The line as the inside of a JSON string; control characters are left out. */
static void say_line(void)
{
    char escaped[2 * MAX_LINE];
    char *out = escaped;
    size_t i;

    for (i = 0; i < length; i++) {
        if ((unsigned char)line[i] < ' ')
            continue;
        if (line[i] == '"' || line[i] == '\\')
            *out++ = '\\';
        *out++ = line[i];
    }
    *out = '\0';
    event(name_of_line(), "{\"line\":\"%s\"}", escaped);
    length = 0;
}

/* Takes what has been written since; a line that is too long comes in parts. */
static void read_on(int fd)
{
    char text[4096];
    ssize_t count, i;

    while ((count = read(fd, text, sizeof text)) > 0) {
        for (i = 0; i < count; i++) {
            if (text[i] != '\n')
                line[length++] = text[i];
            if (text[i] == '\n' || length == sizeof line - 1) {
                line[length] = '\0';
                say_line();
            }
        }
    }
}

/* Whether `path` names another file now than the one that is open. */
static bool replaced(const char *path, int fd)
{
    struct stat named, open_one;

    return stat(path, &named) == 0 && fstat(fd, &open_one) == 0 &&
           named.st_ino != open_one.st_ino;
}

int main(int argc, char **argv)
{
    int fd = -1;

    if (argc != 2 && argc != 3)
        return 2;
    name = argv[2];
    for (;; poll(NULL, 0, LOOK_EVERY_MS)) {
        if (fd < 0)
            fd = open(argv[1], O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        read_on(fd);
        if (replaced(argv[1], fd)) {
            read_on(fd);
            close(fd);
            fd = -1;
        }
    }
}

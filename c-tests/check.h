/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A check that says what was expected and what came instead. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vicover.h"

#define CHECK(condition)                                                       \
    do {                                                                       \
        if (!(condition)) {                                                    \
            fprintf(stderr, "%s:%d: not so: %s (last error: %s)\n", __FILE__,  \
                    __LINE__, #condition, vicover_last_error());               \
            exit(1);                                                           \
        }                                                                      \
    } while (0)

/* The call answers with this status and a text that contains this. */
#define REFUSED(call, code, text)                                              \
    do {                                                                       \
        vicover_status status_ = (call);                                       \
        if (status_ != (code) || !strstr(vicover_last_error(), (text))) {      \
            fprintf(stderr,                                                    \
                    "%s:%d: %s: expected %d and \"%s\", got %d and \"%s\"\n",  \
                    __FILE__, __LINE__, #call, (code), (text), status_,        \
                    vicover_last_error());                                     \
            exit(1);                                                           \
        }                                                                      \
    } while (0)

#endif

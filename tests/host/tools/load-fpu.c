/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Loads FPU state for ever, in bursts of 10,000 loads with a pause of a millisecond
 * after each. Under QEMU every fldenv writes a word of processor 0's state from the
 * thread of the processor that runs this: see driver/processors.py. The pauses leave
 * the guests beside it a processor to boot on.
 */
#include <stdint.h>
#include <time.h>

#define BURST 10000
#define PAUSE_NS 1000000

int main(void)
{
    struct timespec pause = { .tv_nsec = PAUSE_NS };
    uint8_t environment[28];
    int i;

    __asm__ volatile("fninit\n\tfnstenv %0" : "=m"(environment));
    for (;; nanosleep(&pause, NULL)) {
        for (i = 0; i < BURST; i++)
            __asm__ volatile("fldenv %0" : : "m"(environment));
    }
}

/*
 * Loads FPU state for ever. Under QEMU every fldenv writes a word of processor 0's
 * state from the thread of the processor that runs this: see driver/processors.py.
 */
#include <stdint.h>

int main(void)
{
    uint8_t environment[28];

    __asm__ volatile("fninit\n\tfnstenv %0" : "=m"(environment));
    for (;;)
        __asm__ volatile("fldenv %0" : : "m"(environment));
}

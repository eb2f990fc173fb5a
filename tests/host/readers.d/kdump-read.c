/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads a dump through libkdumpfile on behalf of a script.
 *
 *   kdump-read FILE
 *
 * Requests on standard input, one a line:
 *   vmcoreinfo              the dump's VMCOREINFO
 *   read ADDRESS SIZE       SIZE bytes at kernel virtual ADDRESS (hexadecimal)
 *   physical ADDRESS SIZE   SIZE bytes at guest physical ADDRESS (hexadecimal)
 *   register NAME CPU       a register's value, in hexadecimal
 * Each answer is a line "ok SIZE" followed by SIZE bytes, or "error TEXT".
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libkdumpfile/kdumpfile.h>

static void answer(const void *data, size_t size)
{
    printf("ok %zu\n", size);
    fwrite(data, 1, size, stdout);
    fflush(stdout);
}

static void refuse(kdump_ctx_t *ctx)
{
    printf("error %s\n", kdump_get_err(ctx));
    fflush(stdout);
}

static void read_memory(kdump_ctx_t *ctx, kdump_addrspace_t space, unsigned long address,
                        size_t size)
{
    size_t done = size;
    char *data = malloc(size + 1);

    if (data && kdump_read(ctx, space, address, data, &done) == KDUMP_OK && done == size)
        answer(data, size);
    else
        refuse(ctx);
    free(data);
}

static void read_register(kdump_ctx_t *ctx, const char *name, unsigned cpu)
{
    char key[64], text[32];
    kdump_num_t value;

    snprintf(key, sizeof key, "cpu.%u.reg.%s", cpu, name);
    if (kdump_get_number_attr(ctx, key, &value) == KDUMP_OK)
        answer(text, snprintf(text, sizeof text, "%lx", (unsigned long)value));
    else
        refuse(ctx);
}

static void serve(kdump_ctx_t *ctx, const char *line)
{
    unsigned long address, size;
    char *text, name[16];
    unsigned cpu;

    if (strcmp(line, "vmcoreinfo\n") == 0) {
        if (kdump_vmcoreinfo_raw(ctx, &text) != KDUMP_OK) {
            refuse(ctx);
            return;
        }
        answer(text, strlen(text));
        free(text);
    } else if (sscanf(line, "read %lx %lx", &address, &size) == 2) {
        read_memory(ctx, KDUMP_KVADDR, address, size);
    } else if (sscanf(line, "physical %lx %lx", &address, &size) == 2) {
        read_memory(ctx, KDUMP_MACHPHYSADDR, address, size);
    } else if (sscanf(line, "register %15s %u", name, &cpu) == 2) {
        read_register(ctx, name, cpu);
    } else {
        printf("error unknown request\n");
        fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    kdump_ctx_t *ctx = kdump_new();
    char line[128];
    int fd;

    if (argc != 2 || !ctx) {
        fprintf(stderr, "usage: kdump-read FILE\n");
        return 2;
    }
    fd = open(argv[1], O_RDONLY);
    if (fd < 0) {
        perror(argv[1]);
        return 1;
    }
    if (kdump_open_fd(ctx, fd) != KDUMP_OK ||
        kdump_set_string_attr(ctx, KDUMP_ATTR_OSTYPE, "linux") != KDUMP_OK) {
        fprintf(stderr, "%s\n", kdump_get_err(ctx));
        return 1;
    }
    while (fgets(line, sizeof line, stdin))
        serve(ctx, line);
    return 0;
}

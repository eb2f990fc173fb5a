/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Gives a guest the kinds of user memory that a page plan must tell apart,
 * says so on standard output, and stays until the guest dies.
 *
 * Usage: load FILE MIB
 *   FILE   some megabytes on a disk file system
 *   MIB    memory to fill beside, with what compresses as programs' memory does
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_HWPOISON
#define MADV_HWPOISON 100
#endif

#define MIB (1UL << 20)
#define PAGE 4096UL

static void *map(size_t bytes, int flags, int fd, const char *what)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);

    if (at == MAP_FAILED) {
        printf("load: %s: %s\n", what, strerror(errno));
        exit(1);
    }
    return at;
}

static void advise(void *at, size_t bytes, int advice, const char *what)
{
    if (madvise(at, bytes, advice))
        printf("load: %s: %s\n", what, strerror(errno));
    else
        printf("load: %s: %zu pages\n", what, bytes / PAGE);
}

/* Words no two pages share, so that no page is zero or like another. */
static void fill(void *at, size_t bytes)
{
    static uint64_t state = 0x9e3779b97f4a7c15u;
    uint64_t *word = at;

    for (size_t i = 0; i < bytes / sizeof(*word); i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word[i] = state;
    }
}

/* Pages of noise, of pointers, of text, and of few bytes in turn. */
static void fill_like_programs(void *at, size_t bytes)
{
    static const char text[] = "GET /index.html HTTP/1.1 200 ok user=anonymous ";
    uint64_t state = 88172645463325252u;

    for (size_t page = 0; page < bytes / PAGE; page++) {
        uint64_t *word = (uint64_t *)((char *)at + page * PAGE);

        for (size_t i = 0; i < PAGE / sizeof(*word); i++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            switch (page % 4) {
            case 0:
                word[i] = state;
                break;
            case 1: /* into a heap of 16 MiB, every third a small number */
                word[i] = i % 3 ? 0x7f3a40000000u + (state & 0xfffff0) : state & 0xff;
                break;
            case 2:
                memcpy(&word[i], text + (state >> 8) % (sizeof(text) - 9), 8);
                break;
            default:
                word[i] = i % 16 ? 0 : state & 0xffffff;
            }
        }
    }
}

static unsigned long sum(const volatile unsigned char *at, size_t bytes)
{
    unsigned long total = 0;

    for (size_t i = 0; i < bytes; i += PAGE)
        total += at[i];
    return total;
}

/* Poisoning one's own memory brings a signal; nobody touches that memory. */
static void poisoned(int number)
{
    (void)number;
}

int main(int argc, char **argv)
{
    const int private = MAP_PRIVATE | MAP_ANONYMOUS;
    unsigned long total = 0;
    size_t fill_bytes;
    struct stat file;
    void *at;
    int fd;

    if (argc != 3)
        return 2;
    signal(SIGBUS, poisoned);
    setvbuf(stdout, NULL, _IOLBF, 0);

    fill_bytes = strtoul(argv[2], NULL, 10) * MIB;
    if (fill_bytes) {
        at = map(fill_bytes, private, -1, "programs");
        fill_like_programs(at, fill_bytes);
    }

    at = map(96 * MIB, private, -1, "anonymous");
    advise(at, 96 * MIB, MADV_NOHUGEPAGE, "anonymous");
    fill(at, 80 * MIB); /* the rest stays untouched, or zero: */
    memset((char *)at + 80 * MIB, 0, 8 * MIB);

    at = map(34 * MIB, private, -1, "huge");
    at = (void *)(((uintptr_t)at + 2 * MIB - 1) & ~(2 * MIB - 1));
    advise(at, 32 * MIB, MADV_HUGEPAGE, "transparent huge");
    fill(at, 32 * MIB);
    /* One page of a huge page gone: it must be split or stay whole. */
    advise((char *)at + 5 * PAGE, PAGE, MADV_DONTNEED, "hole in huge");

    at = map(16 * MIB, private | MAP_HUGETLB, -1, "hugetlb");
    fill(at, 12 * MIB);

    at = map(16 * MIB, MAP_SHARED | MAP_ANONYMOUS, -1, "shared");
    fill(at, 16 * MIB);

    at = map(4 * MIB, private, -1, "locked");
    fill(at, 4 * MIB);
    if (mlock(at, 4 * MIB))
        printf("load: mlock: %s\n", strerror(errno));

    /* Out to swap and half of it back: swap cache. */
    at = map(16 * MIB, private, -1, "swapped");
    advise(at, 16 * MIB, MADV_NOHUGEPAGE, "swapped");
    fill(at, 16 * MIB);
    advise(at, 16 * MIB, MADV_PAGEOUT, "pageout");
    total += sum(at, 8 * MIB);

    fd = open(argv[1], O_RDWR);
    if (fd < 0 || fstat(fd, &file)) {
        printf("load: %s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    total += sum(map(file.st_size, MAP_SHARED, fd, "file"), file.st_size);
    at = map(file.st_size, MAP_PRIVATE, fd, "private file");
    fill(at, 4 * MIB);

    at = map(MIB, private, -1, "poisoned");
    fill(at, MIB);
    advise((char *)at + 16 * PAGE, 3 * PAGE, MADV_HWPOISON, "poisoned");

    /* Two processes over the same pages, some copied by the child. */
    at = map(8 * MIB, private, -1, "forked");
    fill(at, 8 * MIB);
    fflush(stdout);
    if (fork() == 0) {
        fill(at, 2 * MIB);
        printf("load: child ready\n");
    } else {
        printf("load: ready (%lu)\n", total);
    }
    for (;;)
        pause();
}

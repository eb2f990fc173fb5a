/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guest's network service: a durable log of numbers.
 *
 *   put N       append N to the log on the disk, fdatasync, answer "ok N"
 *   list        all numbers in the log, one a line, then "end"
 *   load A T C  hold A MiB of patterned anonymous memory, T MiB of tmpfs and
 *               C MiB of page cache from the disk; answer "ok"
 *   memory      answer "ok TOTAL FREE", in KiB, as the kernel counts them
 *   uptime      answer "ok SECONDS" since the kernel booted
 *   overwrite N keep N writes on their way to the disk from now on, each over
 *               64 KiB of its own and past the page cache; answer "ok"
 *   overwritten answer "ok SUM" of what the disk has where these writes go
 *   crash N     panic the kernel (sysrq c) on processor N; no answer
 *
 *   service PORT LOG TMPFS-FILE CACHE-FILE DISK
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#define MIB (1UL << 20)
#define PAGE 4096UL
#define WRITE_SIZE (64 * 1024UL)
#define MAX_CLIENTS 16
#define RECORD_SIZE 11 /* ten digits and a newline: a torn record is seen */

static int log_fd;
static const char *tmpfs_path, *cache_path, *written_path;

static void die(const char *what)
{
    fprintf(stderr, "service: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void write_all(int fd, const void *data, size_t size)
{
    const char *at = data;

    while (size > 0) {
        ssize_t n = write(fd, at, size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* a client that went away; disk writes check fdatasync */
        at += n;
        size -= n;
    }
}

static void put(int client, unsigned long number)
{
    char record[RECORD_SIZE + 1], answer[32];

    snprintf(record, sizeof record, "%010lu\n", number);
    if (write(log_fd, record, RECORD_SIZE) != RECORD_SIZE || fdatasync(log_fd))
        die("log");
    write_all(client, answer,
              snprintf(answer, sizeof answer, "ok %lu\n", number));
}

static void list(int client)
{
    char block[RECORD_SIZE * 512];
    off_t at = 0;
    ssize_t n;

    while ((n = pread(log_fd, block, sizeof block, at)) > 0) {
        write_all(client, block, n - n % RECORD_SIZE);
        at += n;
    }
    write_all(client, "end\n", 4);
}

/* Every page tells what it is and which one; half are hard to compress. */
static void fill_page(uint8_t *page, const char *kind, unsigned long index)
{
    uint64_t state = 0x9e3779b97f4a7c15 * (index + 1), *word = (uint64_t *)page;
    size_t i;

    for (i = 0; i < PAGE / sizeof *word; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word[i] = index % 2 ? state : 0x2e65676170202020;
    }
    snprintf((char *)page, 48, "vicover %s page %lu", kind, index);
}

static void load(int client, unsigned long anon_mib, unsigned long tmpfs_mib,
                 unsigned long cache_mib)
{
    uint8_t *anon = mmap(NULL, anon_mib * MIB + PAGE, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int tmpfs = open(tmpfs_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int cache = open(cache_path, O_RDONLY | O_CLOEXEC);
    static uint8_t block[MIB];
    unsigned long i;

    if (anon == MAP_FAILED || tmpfs < 0 || cache < 0)
        die("load");
    for (i = 0; i < anon_mib * MIB / PAGE; i++)
        fill_page(anon + i * PAGE, "anonymous", i);
    for (i = 0; i < tmpfs_mib * MIB / PAGE; i++) {
        fill_page(block, "tmpfs", i);
        write_all(tmpfs, block, PAGE);
    }
    for (i = 0; i < cache_mib && read(cache, block, MIB) > 0; i++)
        ;
    close(cache);
    write_all(client, "ok\n", 3);
}

static void memory(int client)
{
    struct sysinfo info;
    char answer[64];

    if (sysinfo(&info) < 0)
        die("sysinfo");
    write_all(client, answer,
              snprintf(answer, sizeof answer, "ok %lu %lu\n",
                       info.totalram * info.mem_unit / 1024,
                       info.freeram * info.mem_unit / 1024));
}

static void uptime(int client)
{
    struct sysinfo info;
    char answer[32];

    if (sysinfo(&info) < 0)
        die("sysinfo");
    write_all(client, answer,
              snprintf(answer, sizeof answer, "ok %ld\n", info.uptime));
}

/* One of the writers, for ever: what it writes is never the same twice. */
static void overwrite_slot(int fd, uint8_t *block, unsigned long slot)
{
    unsigned long round, i;

    for (round = 0;; round++) {
        for (i = 0; i < WRITE_SIZE / PAGE; i++)
            fill_page(block + i * PAGE, "write", round << 16 | slot << 8 | i);
        if (pwrite(fd, block, WRITE_SIZE, slot * WRITE_SIZE) != WRITE_SIZE)
            die("overwrite");
    }
}

/* Past the page cache: what is written is on its way to the disk. */
static int open_written(int flags)
{
    int fd = open(written_path, flags | O_DIRECT | O_CLOEXEC, 0600);

    if (fd < 0)
        die(written_path);
    return fd;
}

static uint8_t *aligned_block(void)
{
    void *block;

    if (posix_memalign(&block, PAGE, WRITE_SIZE) != 0)
        die("memory");
    return block;
}

static void overwrite(int client, unsigned long writers)
{
    int fd = open_written(O_RDWR);
    unsigned long slot;

    for (slot = 0; slot < writers; slot++)
        if (fork() == 0)
            overwrite_slot(fd, aligned_block(), slot);
    close(fd);
    write_all(client, "ok\n", 3);
}

static void overwritten(int client)
{
    int fd = open_written(O_RDONLY);
    uint8_t *block = aligned_block();
    uint64_t sum = 0xcbf29ce484222325; /* FNV-1a */
    char text[32];
    ssize_t n, i;

    while ((n = read(fd, block, WRITE_SIZE)) > 0)
        for (i = 0; i < n; i++)
            sum = (sum ^ block[i]) * 0x100000001b3;
    if (n < 0)
        die("overwritten");
    close(fd);
    free(block);
    write_all(client, text, snprintf(text, sizeof text, "ok %016lx\n", sum));
}

/* In a process of its own, whose number says nothing about the processor. */
static void crash(unsigned long processor)
{
    int trigger = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);
    cpu_set_t set;

    if (fork() != 0)
        return;
    CPU_ZERO(&set);
    CPU_SET(processor, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0)
        die("processor");
    write_all(trigger, "c", 1);
    die("sysrq-trigger");
}

static void answer(int client, char *line)
{
    unsigned long a, b, c;

    if (sscanf(line, "put %lu", &a) == 1)
        put(client, a);
    else if (strcmp(line, "list") == 0)
        list(client);
    else if (sscanf(line, "load %lu %lu %lu", &a, &b, &c) == 3)
        load(client, a, b, c);
    else if (strcmp(line, "memory") == 0)
        memory(client);
    else if (strcmp(line, "uptime") == 0)
        uptime(client);
    else if (sscanf(line, "overwrite %lu", &a) == 1)
        overwrite(client, a);
    else if (strcmp(line, "overwritten") == 0)
        overwritten(client);
    else if (sscanf(line, "crash %lu", &a) == 1)
        crash(a);
    else
        write_all(client, "unknown request\n", 16);
}

/* Lines are short and clients wait for answers, so one read is one request. */
static bool serve(int client)
{
    char line[256];
    ssize_t n = read(client, line, sizeof line - 1);

    if (n <= 0)
        return false;
    line[n] = 0;
    line[strcspn(line, "\n")] = 0;
    answer(client, line);
    return true;
}

static int listen_on(uint16_t port)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons(port) };
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(fd, MAX_CLIENTS) < 0)
        die("listen");
    return fd;
}

/* A crash may leave half a record at the end: cut it off. */
static void open_log(const char *path)
{
    struct stat status;

    log_fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0 || fstat(log_fd, &status) < 0 ||
        ftruncate(log_fd, status.st_size - status.st_size % RECORD_SIZE) < 0)
        die(path);
}

int main(int argc, char **argv)
{
    struct pollfd fds[1 + MAX_CLIENTS];
    int count = 1, i, on = 1;

    if (argc != 6) {
        fprintf(stderr, "usage: service PORT LOG TMPFS-FILE CACHE-FILE DISK\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    open_log(argv[2]);
    tmpfs_path = argv[3];
    cache_path = argv[4];
    written_path = argv[5];
    fds[0] = (struct pollfd){ .fd = listen_on(atoi(argv[1])), .events = POLLIN };
    printf("service: ready\n");
    fflush(stdout);
    for (;;) {
        if (poll(fds, count, -1) < 0 && errno != EINTR)
            die("poll");
        for (i = count - 1; i > 0; i--) {
            if (fds[i].revents && !serve(fds[i].fd)) {
                close(fds[i].fd);
                fds[i] = fds[--count];
            }
        }
        if (fds[0].revents && count <= MAX_CLIENTS) {
            int fd = accept4(fds[0].fd, NULL, NULL, SOCK_CLOEXEC);

            if (fd < 0)
                continue;
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            fds[count++] = (struct pollfd){ .fd = fd, .events = POLLIN };
        }
    }
}

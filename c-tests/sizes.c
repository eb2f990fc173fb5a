/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a caller or a file states is refused before memory is taken for it: sizes
 * DIRECTORY. The process may have 1 GiB. */
#define _GNU_SOURCE
#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

static struct vicover_options options;
static struct vicover_image image;
static char path[4096];

static void reset(const char *directory)
{
    memset(&options, 0, sizeof(options));
    options.struct_size = sizeof(options);
    options.spec = "threads=1,buffer=8M";
    options.name = "sizes";
    options.dump_dir = directory;
    memset(&image, 0, sizeof(image));
    image.struct_size = sizeof(image);
    image.memory_bytes = 1 << 20;
}

static void stated_by_the_caller(void)
{
    vicover_job job;

    image.vcpus = 0xffffffff;
    REFUSED(vicover_dump_image(&options, &image, &job), VICOVER_ERR_OPTION,
            "vicover_image.vcpus is 4294967295; allowed: 0 (for one) to 4096");
    image.vcpus = 4096;
    CHECK(vicover_dump_image(&options, &image, &job) == VICOVER_OK);
    CHECK(vicover_wait(job, VICOVER_UNTIL_DONE, 60000) == VICOVER_OK);
    CHECK(vicover_free(job) == VICOVER_OK);
    image.vcpus = 1;
    image.memory_bytes = UINT64_MAX;
    REFUSED(vicover_dump_image(&options, &image, &job), VICOVER_ERR_OPTION,
            "memory_bytes is 18446744073709551615; allowed: 4096 to 17592186044416");
    image.memory_bytes = (uint64_t)17 << 40;
    REFUSED(vicover_dump_image(&options, &image, &job), VICOVER_ERR_OPTION, "memory_bytes");
}

/* A file of no bytes but of this length; its name goes to path. */
static int sparse(uint64_t length)
{
    int fd = memfd_create("sparse", MFD_CLOEXEC);

    CHECK(fd >= 0 && ftruncate(fd, (off_t)length) == 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return fd;
}

static void stated_by_an_image(void)
{
    vicover_job job;
    int fd = sparse((uint64_t)1 << 62);

    image.path = path;
    REFUSED(vicover_dump_image(&options, &image, &job), VICOVER_ERR_IO,
            "1125899906842624 page frames cannot be: 4294967296 are allowed");
    close(fd);
}

static void write_text(const char *directory, const char *name, const char *text)
{
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    FILE *file = fopen(path, "w");
    CHECK(file && fputs(text, file) >= 0 && fclose(file) == 0);
}

static void stated_by_an_image_directory(const char *directory)
{
    static char image_directory[2048];
    vicover_job job;

    snprintf(image_directory, sizeof(image_directory), "%s/image", directory);
    CHECK(mkdir(image_directory, 0700) == 0);
    write_text(image_directory, "ram", "");
    CHECK(truncate(path, 4096) == 0);
    write_text(image_directory, "ranges", "9223372036854771712 0 4096\n");
    image.path = image_directory;
    REFUSED(vicover_dump_image(&options, &image, &job), VICOVER_ERR_IO,
            "2251799813685248 page frames cannot be: 4294967296 are allowed");
    CHECK(unlink(path) == 0 && symlink("/dev/zero", path) == 0);
    REFUSED(vicover_dump_image(&options, &image, &job), VICOVER_ERR_IO,
            "ranges: more than 131072 bytes");
}

static void stated_by_an_elf_file(void)
{
    struct vicover_verdict verdict = { .struct_size = sizeof(verdict) };
    Elf64_Ehdr header = {
        .e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
        .e_type = ET_CORE,
        .e_machine = EM_X86_64,
        .e_phoff = sizeof(header),
        .e_phentsize = sizeof(Elf64_Phdr),
        .e_phnum = 1,
    };
    Elf64_Phdr notes = {
        .p_type = PT_NOTE,
        .p_offset = 4096,
        .p_filesz = (uint64_t)1 << 60,
    };
    int fd = sparse((uint64_t)1 << 61);

    CHECK(pwrite(fd, &header, sizeof(header), 0) == sizeof(header));
    CHECK(pwrite(fd, &notes, sizeof(notes), sizeof(header)) == sizeof(notes));
    CHECK(vicover_verify(path, &verdict) == VICOVER_OK);
    CHECK(verdict.state == VICOVER_DUMP_INCOMPLETE);
    close(fd);
}

int main(int argc, char **argv)
{
    const char *directory = argc > 1 ? argv[1] : ".";
    struct rlimit memory = { .rlim_cur = 1 << 30, .rlim_max = 1 << 30 };

    CHECK(setrlimit(RLIMIT_AS, &memory) == 0);
    reset(directory);
    stated_by_the_caller();
    reset(directory);
    stated_by_an_image();
    stated_by_an_image_directory(directory);
    stated_by_an_elf_file();
    return 0;
}

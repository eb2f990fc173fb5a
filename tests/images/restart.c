/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Has the running kernel start another in its place, as kexec does.
 *
 * Usage: restart KERNEL INITRD COMMAND_LINE
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/reboot.h>

int main(int argc, char **argv)
{
    int kernel, initrd;

    if (argc != 4)
        return 2;
    kernel = open(argv[1], O_RDONLY);
    initrd = open(argv[2], O_RDONLY);
    if (kernel < 0 || initrd < 0 ||
        syscall(SYS_kexec_file_load, kernel, initrd, strlen(argv[3]) + 1, argv[3], 0UL))
        printf("restart: loading: %s\n", strerror(errno));
    else if (syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2,
                     LINUX_REBOOT_CMD_KEXEC, NULL))
        printf("restart: starting: %s\n", strerror(errno));
    return 1;
}

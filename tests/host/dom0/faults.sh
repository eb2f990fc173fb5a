# SPDX-License-Identifier: LGPL-2.1-or-later
# Steps that make something go wrong on purpose: the disk of dumps, the guest's, its
# kernel. Disks are device-mapper's, so that they can be made bad while they are used.

# Nobody makes device nodes here but libdevmapper itself.
export DM_DISABLE_UDEV=1

# mapped NAME DEVICE: /dev/mapper/NAME is DEVICE, for now.
mapped() {
    modprobe -a dm-mod dm-flakey &&
    dmsetup create "$1" --table "$(table_of "$2" linear)"
}

# table_of DEVICE KIND [WORD...]: a table of one target over all of DEVICE.
table_of() {
    device=$1 kind=$2
    shift 2
    echo "0 $(blockdev --getsz "$device") $kind $device 0 $*"
}

# What a mapped disk is on.
below() {
    dmsetup deps -o devname "$1" | sed 's/.*(\(.*\))/\/dev\/\1/'
}

# become NAME TABLE: from the next request on. Those on their way are sent anew.
become() {
    dmsetup suspend --noflush --nolockfs "$1" &&
    dmsetup load "$1" --table "$2" &&
    dmsetup resume "$1"
}

# dump_disk MIB: a disk of its own for dumps.
step_dump_disk() {
    truncate -s "$1M" /out/dumps.img &&
    mapped dumps "$(losetup --find --show /out/dumps.img)" &&
    mke2fs -q -t ext4 -m 0 -E lazy_itable_init=0 /dev/mapper/dumps &&
    mkdir "$dumps" &&
    mount /dev/mapper/dumps "$dumps"
}

# The guest's disk is one that can be made bad.
step_map_guest_disk() {
    mapped guest "$(disk guest)" &&
    ln -sfn /dev/mapper/guest /dev/vhost-guest
}

# new_disk MIB: another disk that can be made bad; what is below it can be made slow.
new_disk() {
    truncate -s "$1M" /out/images.img &&
    mapped below "$(losetup --find --show /out/images.img)" &&
    mapped images /dev/mapper/below
}

# map_images MIB: such a disk with images of disks.
map_images() {
    mkdir /out/disks &&
    new_disk "$1" &&
    mke2fs -q -t ext4 -m 0 -E lazy_itable_init=0 /dev/mapper/images &&
    mount /dev/mapper/images /out/disks
}

# third_disk KIND: a third disk of the guest's that can be made bad, or the disk that has
# its image.
step_third_disk() {
    [ "$1" != block ] || { new_disk 16; return; }
    map_images 64 &&
    head -c 16M /dev/zero > /out/disks/third &&
    sync -f /out/disks
}

# The guest's disk and a second one as files, the first in the format that is QEMU's own,
# on a disk that can be made bad.
step_qemu_disks() {
    map_images 1024 &&
    qemu-img convert -f raw -O qcow2 /dev/vhost-guest /out/disks/guest.qcow2 3>&- &&
    cp --sparse=always "$(disk files)" /out/disks/second.img
}

# fill_dump_disk KIB: somebody else takes the room for dumps, up to so much. The dump
# may take some meanwhile, and then there is none left either.
step_fill_dump_disk() {
    fallocate -l "$(($(room_for_dumps) - $1))K" "$dumps/ballast" ||
    [ "$(room_for_dumps)" -le "$1" ]
}

room_for_dumps() {
    df --output=avail "$dumps" | tail -n 1
}

# slow_writes MS: each write to that disk takes so much longer. It is what is below that
# waits: dm-delay counts a request as in flight when it has waited, dm-linear from the start.
step_slow_writes() {
    modprobe dm-delay &&
    become below "$(table_of "$(below below)" delay 0 "$(below below)" 0 "$1")"
}

# writes_on_their_way NAME COUNT SECONDS: until so many writes to a disk have not ended.
step_writes_on_their_way() {
    device=$(dmsetup info -c --noheadings -o major,minor "$1") || return
    end=$(($(cut -d. -f1 /proc/uptime) + $3))
    while [ "$(cut -d. -f1 /proc/uptime)" -lt "$end" ]; do
        read -r _ writes < "/sys/dev/block/$device/inflight"
        [ "${writes:-0}" -lt "$2" ] || return 0
        sleep 0.05
    done
    echo "$writes writes are on their way" >&2
    return 1
}

# stall NAME: whoever asks a disk for something waits.
step_stall() {
    dmsetup suspend --noflush --nolockfs "$1"
}

step_go_on() {
    dmsetup resume "$1"
}

# writer_waits SECONDS: until the thread that writes the dump is kept waiting by the kernel.
step_writer_waits() {
    end=$(($(cut -d. -f1 /proc/uptime) + $1))
    while [ "$(cut -d. -f1 /proc/uptime)" -lt "$end" ]; do
        ! grep -qs '(vicover-write) D' /proc/[0-9]*/task/*/stat || return 0
        sleep 0.2
    done
    return 1
}

# fail_writes NAME: every write to a disk is an error, and what is there can be read.
step_fail_writes() {
    become "$1" "$(table_of "$(below "$1")" flakey 0 3600 1 error_writes)"
}

# keep_dumps NAME: what is on the disk of dumps by now, and not only in memory, goes to
# a directory of this name; the disk is sound and empty again.
step_keep_dumps() {
    # What is beside a dump is written until its crash is handled.
    step_no_journal 60 &&
    umount "$dumps" &&
    become dumps "$(table_of "$(below dumps)" linear)" || return
    # 1: what was wrong is mended.
    e2fsck -f -y /dev/mapper/dumps > "/out/e2fsck-$1.log" 2>&1
    [ $? -le 1 ] &&
    mount /dev/mapper/dumps "$dumps" &&
    rm -rf "$dumps/lost+found" "$dumps/ballast" &&
    mkdir -p "/out/kept/$1" || return
    event kept "{\"list\":$(find "$dumps" -type f -printf '%f\n' | json_lines)}"
    find "$dumps" -type f -exec mv {} "/out/kept/$1/" \;
}

# The guest's kernel and ramdisk are not there, and are there again.
step_hide_kernel() {
    umount /guest
}

step_show_kernel() {
    mount -t ext4 -o ro "$(disk files)" /guest
}

# destroy_domain DOMID
step_destroy_domain() {
    xl destroy "$1" 3>&-
}

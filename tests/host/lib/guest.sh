# SPDX-License-Identifier: LGPL-2.1-or-later
# guest: kernel, initrd and disk of the guest, on an image dom0 mounts.

guest_sources=(private-apt lib/xen.sh lib/guest.sh lib/dom0.sh lib/unpack-vmlinux
    lib/quick-calibration guest/init guest/service.c)

guest_modules=(xen-blkfront xen-netfront ext4 crc32c_generic)

make_guest() {
    step "fetch packages" fetch_guest
    step "service" guest_service
    step "kernel" guest_kernel
    step "initrd" guest_initrd
    step "disk image" guest_disk
    step "files image" guest_files
    rm -rf "$work/debs" "$work/kernel" "$work/early" "$work/files" "$work/service"
}

fetch_guest() {
    fetch_kernel "$work/debs"
    unpack_debs "$work/debs" "$work/kernel"
}

guest_service() {
    sdk_cc -static -o "$work/service" "$here/guest/service.c"
}

# Uncompressed: xl would otherwise spend five emulated seconds unpacking it at
# every create. HVM guests get Debian's own: QEMU unpacks nothing, and hands it over byte
# by byte, so that a small one is quicker there; and so is a small ramdisk.
guest_kernel() {
    mkdir -p "$work/files"
    cp "$work"/kernel/boot/vmlinuz-* "$work/files/vmlinuz"
    "$here/lib/unpack-vmlinux" "$work"/kernel/boot/vmlinuz-* "$work/files/vmlinux"
    "$here/lib/quick-calibration" "$work/files/vmlinux" "$work/files/vmlinux-quick"
}

guest_initrd() {
    local early=$work/early
    mkdir -p "$early"/{bin,dev,proc,sys,data,second,tmp}
    cp "$sdk/busybox" "$early/bin/"
    install -m 755 "$work/service" "$early/bin/service"
    install -m 755 "$here/guest/init" "$early/init"
    copy_modules "$work/kernel" "$early" "${guest_modules[@]}"
    pack_initrd "$early" "$work/files/initrd"
    gzip -9 -k "$work/files/initrd"
}

# 64 MiB of varied bytes give the guest something to fill its page cache with.
guest_disk() {
    local data=$work/data
    mkdir "$data"
    openssl enc -aes-128-ctr -K 00112233445566778899aabbccddeeff \
        -iv 00000000000000000000000000000000 -in /dev/zero 2>/dev/null |
        head -c 64M > "$data/cache" || [ "$(stat -c %s "$data/cache")" = 67108864 ]
    mke2fs -q -t ext4 -m 0 -L data -E root_owner=0:0 -d "$data" \
        "$work/disk.ext4" 256M
    rm -r "$data"
}

guest_files() {
    mke2fs -q -t ext4 -m 0 -L guest -O ^has_journal -d "$work/files" \
        "$work/files.ext4" \
        "$(($(du -sm "$work/files" | cut -f1) * 5 / 4 + 16))M"
}

# SPDX-License-Identifier: LGPL-2.1-or-later
# dom0: the hypervisor, dom0's kernel and initrd, and its root file system.
# What dom0 does (its init and scenarios) is added at each start, not here.

dom0_sources=(private-apt lib/xen.sh lib/dom0.sh dom0/initrd-init)

dom0_packages=("xen-utils-$XEN" xen-utils-common xenstore-utils "xen-hypervisor-$XEN-amd64"
    busybox-static bash dash coreutils sed grep mawk util-linux mount findutils tar
    gzip hostname libc-bin base-files debianutils kmod iproute2 procps strace
    libxenstore4 libstdc++6 dmsetup e2fsprogs qemu-system-xen qemu-utils)

# Pulled in by dependencies that dom0's PVH path never uses.
dom0_unwanted=('perl*' 'python3*' 'libpython3*' 'libperl*' usrmerge 'lib*-perl'
    udev debconf dpkg adduser ucf passwd sensible-utils media-types
    'libdb5.3' 'libkrb5*' libsqlite3-0 'grub*')

dom0_modules=(virtio_blk virtio_pci virtio_console ext4 crc32c_generic loop bridge tun
    dm-mod dm-flakey dm-delay
    xen-evtchn xen-gntdev xen-gntalloc xen-privcmd xenfs xen-blkback xen-netback)

make_dom0() {
    local debs=$work/debs
    step "fetch packages" fetch_dom0
    step "hypervisor's version" check_hypervisor
    step "unpack packages" unpack_dom0
    step "trim root" trim_dom0
    step "root image" dom0_image
    step "initrd" dom0_initrd
    rm -rf "$debs" "$work/root" "$work/kernel" "$work/early"
}

fetch_dom0() {
    "$here/private-apt" debs "$debs" "${dom0_packages[@]}"
    fetch_kernel "$work/kernel-debs"
}

# Before 4.17.7 and 4.20.4 (XSA-507) a domain's release of memory could take its
# special pages, too, while it is populated on demand.
check_hypervisor() {
    local version
    version=$(dpkg-deb -f "$debs"/xen-hypervisor-*-amd64_*.deb Version)
    echo "$version"
    dpkg --compare-versions "$version" ge "$xen_least" || {
        echo "$xen_least is needed: is there no archive of security updates?"
        return 1
    }
}

# The kernel by its versioned name, which the meta package depends on.
fetch_kernel() {
    local name
    "$here/private-apt" only "$1" linux-image-amd64
    name=$(dpkg-deb -f "$1"/linux-image-amd64_*.deb Depends | awk '{print $1}')
    "$here/private-apt" only "$1" "$name"
    rm "$1"/linux-image-amd64_*.deb
}

unpack_dom0() {
    unpack_debs "$debs" "$work/root" "${dom0_unwanted[@]}"
    unpack_debs "$work/kernel-debs" "$work/kernel"
    rm -r "$work/kernel-debs"
    zcat "$work/root/boot/xen-$XEN-amd64.gz" > "$work/xen.elf"
    cp "$work"/kernel/boot/vmlinuz-* "$work/vmlinuz"
}

trim_dom0() {
    local root=$work/root
    rm -rf "$root"/boot "$root"/usr/share/{doc,man,locale,info,lintian,bug,perl5} \
        "$root"/usr/lib/python3* "$root"/usr/share/zoneinfo
    copy_modules "$work/kernel" "$root" "${dom0_modules[@]}"
    # What maintainer scripts would have done.
    ln -sf mawk "$root/usr/bin/awk"
    ln -sf dash "$root/usr/bin/sh"
    mkdir -p "$root"/{proc,sys,dev,run,tmp,out,guest,root,mnt} \
        "$root"/var/{log/xen/console,lib/xen,lib/xenstored} "$root/var/lock"
    rm -rf "$root/var/run" "$root/var/lock"
    ln -s /run "$root/var/run"
    ln -s /run/lock "$root/var/lock"
    ln -sf /proc/self/mounts "$root/etc/mtab"
    echo 'root:x:0:0:root:/root:/bin/sh' > "$root/etc/passwd"
    echo 'root:x:0:' > "$root/etc/group"
    echo '127.0.0.1 localhost dom0' > "$root/etc/hosts"
    echo /usr/lib/x86_64-linux-gnu > "$root/etc/ld.so.conf"
    ldconfig -r "$root"
}

dom0_image() {
    local mib
    mib=$(($(du -sm "$work/root" | cut -f1) * 5 / 4 + 192))
    mke2fs -q -t ext4 -m 0 -L dom0 -E root_owner=0:0 -d "$work/root" \
        "$work/root.ext4" "${mib}M"
}

dom0_initrd() {
    local early=$work/early
    mkdir -p "$early"/{bin,dev,proc,sys,newroot}
    cp "$work/root/bin/busybox" "$early/bin/"
    install -m 755 "$here/dom0/initrd-init" "$early/init"
    copy_modules "$work/kernel" "$early" virtio_blk virtio_pci ext4 crc32c_generic
    pack_initrd "$early" "$work/initrd.cpio"
}

# SPDX-License-Identifier: LGPL-2.1-or-later
# postgres: a guest's disk with PostgreSQL on it, in place of the guest's own,
# and the database's client for dom0. Packages are only unpacked; the data
# directory is made by PostgreSQL itself, on the disk, under a kernel in QEMU.

postgres_sources=(private-apt lib/xen.sh lib/postgres.sh lib/dom0.sh lib/sdk.sh
    guest/postgres/start guest/postgres/make guest/postgres/settings
    dom0/initrd-init tools/database-client.c tools/owed.h tools/event.h)

# Of what PostgreSQL depends on, that which a running server never uses. LLVM is
# for compiling queries, which is off.
postgres_unwanted=('perl*' 'libperl*' 'lib*-perl' usrmerge debconf dpkg adduser
    passwd ucf sensible-utils locales libc-l10n libllvm14 libz3-4 postgresql-common
    postgresql-client-common postgresql-client-15 ssl-cert openssl tar 'libsemanage*'
    'libdb5.3' 'libpam-modules*' init-system-helpers sysvinit-utils lsb-base netbase)

postgres_make_timeout_s=${POSTGRES_MAKE_TIMEOUT_S:-900}
# A quarter of the largest guest that is measured.
postgres_cache_mib=512
postgres_disk_mib=1024

make_postgres() {
    step "fetch packages" fetch_postgres
    step "unpack packages" unpack_postgres
    step "database client" postgres_client
    step "disk image" postgres_disk
    step "database (a boot in QEMU)" postgres_database
    rm -rf "$work/debs" "$work/dev-debs" "$work/dev" "$work/root" "$work/initrd"
}

fetch_postgres() {
    "$here/private-apt" debs "$work/debs" postgresql-15
    "$here/private-apt" only "$work/dev-debs" libpq-dev
}

unpack_postgres() {
    local root=$work/root
    unpack_debs "$work/debs" "$root" "${postgres_unwanted[@]}"
    unpack_debs "$work/dev-debs" "$work/dev"
    rm -rf "$root"/usr/share/{doc,man,locale,info,lintian,bug,perl5} \
        "$root"/usr/lib/x86_64-linux-gnu/gconv
    # What maintainer scripts would have done.
    cp "$sdk/busybox" "$root/bin/busybox"
    ln -sf busybox "$root/bin/sh"
    mkdir -p "$root"/{dev,proc,tmp,etc} "$root/var/lib/postgresql"
    echo 'root:x:0:0:root:/root:/bin/sh
postgres:x:70:70:postgres:/var/lib/postgresql:/bin/sh' > "$root/etc/passwd"
    echo 'root:x:0:
postgres:x:70:' > "$root/etc/group"
    echo /usr/lib/x86_64-linux-gnu > "$root/etc/ld.so.conf"
    ldconfig -r "$root"
    install -m 644 "$here/guest/postgres/start" "$root/start"
    install -m 644 "$here/guest/postgres/settings" "$root/settings"
}

# Laid over dom0's root: the client, and beside it the libraries it needs that
# are not the C library's, which dom0 has.
postgres_client() {
    local root=$work/root to=$work/dom0/usr/lib/vhost
    local libraries=$root/usr/lib/x86_64-linux-gnu
    mkdir -p "$to/bin" "$to/lib"
    # --disable-new-dtags: libraries of libraries are found there, too.
    sdk_cc -I"$work/dev/usr/include/postgresql" -o "$to/bin/database-client" \
        "$here/tools/database-client.c" "$libraries/libpq.so.5" \
        -Wl,-rpath-link,"$libraries" -Wl,--disable-new-dtags \
        -Wl,-rpath,/usr/lib/vhost/lib
    copy_libraries "$to/bin/database-client" "$libraries" "$to/lib"
}

# copy_libraries FILE FROM TO: what FILE needs, and what that needs.
copy_libraries() {
    local name
    objdump -p "$1" | awk '$1 == "NEEDED" {print $2}' | while read -r name; do
        case $name in
        ld-linux* | libc.so.* | libm.so.* | libresolv.so.* | libpthread.so.*) continue ;;
        esac
        [ ! -e "$3/$name" ] || continue
        cp -L "$2/$name" "$3/$name"
        copy_libraries "$3/$name" "$2" "$3"
    done
}

# Varied bytes give the guest something to fill its page cache with.
postgres_disk() {
    local cache=$work/root/cache bytes=$((postgres_cache_mib << 20))
    openssl enc -aes-128-ctr -K 00112233445566778899aabbccddeeff \
        -iv 00000000000000000000000000000000 -in /dev/zero 2>/dev/null |
        head -c "$bytes" > "$cache" || [ "$(stat -c %s "$cache")" = "$bytes" ]
    mke2fs -q -t ext4 -m 0 -L data -E root_owner=0:0 -d "$work/root" \
        "$work/disk.ext4" "${postgres_disk_mib}M"
}

postgres_database() {
    local early=$work/initrd
    mkdir -p "$early/data"
    install -m 755 "$here/guest/postgres/make" "$early/make"
    cp "$dom0/initrd.cpio" "$work/initrd.cpio"
    pack_initrd "$early" "$work/more.cpio"
    cat "$work/more.cpio" >> "$work/initrd.cpio"
    timeout "$postgres_make_timeout_s" qemu-system-x86_64 -nodefaults -no-reboot \
        -display none -machine q35 -accel tcg -m 512M \
        -kernel "$dom0/vmlinuz" -initrd "$work/initrd.cpio" \
        -append "console=ttyS0 quiet rdinit=/make panic=-1 mitigations=off" \
        -serial "file:$work/console" \
        -drive "if=none,id=disk,format=raw,cache=unsafe,file=$work/disk.ext4" \
        -device virtio-blk-pci,drive=disk
    cat "$work/console"
    grep -q '^database made' "$work/console"
    rm "$work/console" "$work/initrd.cpio" "$work/more.cpio"
}

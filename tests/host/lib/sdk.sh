# SPDX-License-Identifier: LGPL-2.1-or-later
# sdk: a sysroot of the host's Debian to compile for dom0 and the guest with the
# machine's own compilers, the same on Debian 12 and 13.

sdk_sources=(private-apt lib/xen.sh lib/sdk.sh lib/sysroot-cc)

sdk_packages=(libc6-dev libxen-dev linux-libc-dev libyajl-dev zlib1g-dev libzstd-dev
    uuid-dev libgcc-s1 busybox-static libxenstore4)

make_sdk() {
    step "fetch packages" "$here/private-apt" debs "$work/debs" \
        "${sdk_packages[@]}"
    step "unpack packages" unpack_sdk
    rm -rf "$work/debs"
}

unpack_sdk() {
    local root=$work/sysroot link target
    unpack_debs "$work/debs" "$root" 'perl*' 'python3*' 'libpython3*' debconf
    cp "$root/bin/busybox" "$work/busybox"
    install -D -m 755 "$here/lib/sysroot-cc" "$work/bin/cc"
    rm -rf "$root"/usr/share/{doc,man,locale,info,lintian}
    # Links to absolute names would leave the sysroot.
    find "$root" -type l -lname '/*' | while read -r link; do
        target=$root$(readlink "$link")
        ln -sfn "$(realpath -m --relative-to="${link%/*}" "$target")" "$link"
    done
}

# sdk_cc ARGUMENT...: the machine's C compiler against the sysroot.
sdk_cc() {
    "$sdk/bin/cc" -std=gnu11 -D_GNU_SOURCE -O2 -g -Wall -Wextra -Werror "$@"
}

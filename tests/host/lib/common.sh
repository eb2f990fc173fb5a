# SPDX-License-Identifier: LGPL-2.1-or-later
# Where built pieces live, how they are keyed, locked and reported.
# Sourced by `build`; expects $here (tests/host).

cache=${XDG_CACHE_HOME:-$HOME/.cache}/vicover/host
log_dir=$cache/log

# The key of a piece: the digest of the Xen it is for and of every file that decides
# its content.
piece_key() {
    (cd "$here" && { echo "$XEN"; sha256sum -- "$@"; } | sha256sum | cut -c1-64)
}

# step NAME COMMAND...: runs COMMAND with its output in a log, prints one line.
step() {
    local name=$1 started status=0 job log
    shift
    log=$log_dir/${piece}-${name// /-}.log
    started=$(date +%s%N)
    printf '%-6s %-38s ' "$piece" "$name" >&2
    # A background job keeps `set -e` in force whatever the caller's context.
    (set -euo pipefail; "$@") > "$log" 2>&1 < /dev/null 9>&- &
    job=$!
    wait "$job" || status=$?
    if [ "$status" -ne 0 ]; then
        printf 'FAILED (status %d)\n' "$status" >&2
        printf 'Step "%s: %s" failed; its log is %s, ending:\n' \
            "$piece" "$name" "$log" >&2
        tail -n 20 "$log" | sed 's/^/    /' >&2
        exit 1
    fi
    awk -v ns=$(($(date +%s%N) - started)) 'BEGIN {printf "%6.1f s\n", ns/1e9}' >&2
}

# build_piece PIECE KEY: leaves the finished directory's path in $built.
# A piece is built in a temporary directory ($work) by make_PIECE and renamed
# into the cache when whole, under a lock, so that two callers build once.
build_piece() {
    piece=$1
    built=$cache/$piece-$2
    [ -d "$built" ] && return
    mkdir -p "$cache" "$log_dir"
    exec 9> "$cache/$piece.lock"
    flock 9
    if [ ! -d "$built" ]; then
        work=$cache/$piece-building.$$
        trap 'rm -rf "$work"' EXIT
        mkdir "$work"
        "make_$piece"
        mv "$work" "$built"
        trap - EXIT
        drop_older
    fi
    exec 9>&-
}

# Older builds of the same piece that nobody used for a week.
drop_older() {
    find "$cache" -maxdepth 1 -name "$piece-*" ! -path "$built" -mtime +7 \
        -exec rm -rf {} +
}

# unpack_debs DEBS ROOT [EXCLUDED-PACKAGE-PATTERN...]: unpacks into a merged
# /usr without running any maintainer script, so no privileges are needed.
unpack_debs() {
    local debs=$1 root=$2 deb name pattern
    shift 2
    mkdir -p "$root"/usr/{bin,sbin,lib,lib64}
    for name in bin sbin lib lib64; do
        [ -e "$root/$name" ] || ln -s "usr/$name" "$root/$name"
    done
    for deb in "$debs"/*.deb; do
        name=${deb##*/}
        for pattern in "$@"; do
            # shellcheck disable=SC2254
            case ${name%%_*} in $pattern) continue 2 ;; esac
        done
        dpkg-deb --fsys-tarfile "$deb" |
            tar -x -C "$root" --keep-directory-symlink --no-same-owner
    done
}

# copy_modules KERNEL-ROOT ROOT MODULE...: the modules with all they depend on.
copy_modules() {
    local from=$1 to=$2 version file kind
    shift 2
    version=$(kernel_version "$from")
    depmod -b "$from" "$version"
    mkdir -p "$to/lib/modules/$version"
    cp "$from/lib/modules/$version"/modules.{order,builtin,builtin.modinfo} \
        "$to/lib/modules/$version/"
    modprobe -d "$from" -S "$version" --show-depends -a "$@" |
    while read -r kind file _; do
        [ "$kind" = insmod ] || continue
        file=lib/${file#*/lib/}
        install -D -m 644 "$from/$file" "$to/$file"
    done
    depmod -b "$to" "$version"
}

kernel_version() { ls "$1/lib/modules"; }

# pack_initrd ROOT FILE
pack_initrd() {
    (cd "$1" && find . -mindepth 1 | LC_ALL=C sort |
        cpio --quiet -o -H newc -R 0:0) > "$2"
}

// SPDX-License-Identifier: LGPL-2.1-or-later
//! Building a thinly backed domain with libxl.
#![allow(unsafe_code)]

use super::config::CrashConfig;
use super::libxl::{libxl_answer, LibxlContext, INVALID_DOMID, KIB_PER_PAGE};
use super::store::Store;
use super::sys;
use crate::host::HostError;

/// What a Linux guest needs to boot, whatever its size: unpacked kernel, early
/// allocations, first programs. KiB.
const BOOT_KIB: u64 = 128 << 10;
/// Page descriptors and other tables that grow with memory: 1.6 % for `struct
/// page` alone, so one part in 32.
const TABLES_SHARE: u64 = 32;
/// A ramdisk is loaded, then unpacked beside itself.
const RAMDISK_FACTOR: u64 = 4;
/// The hypervisor's own structures for a new domain. KiB.
const DOMAIN_STRUCTURES_KIB: u64 = 4 << 10;

/// Memory that backs a domain of this configuration when it starts, in KiB.
pub(super) fn thin_kib(config: &CrashConfig) -> u64 {
    let full = config.max_kib();
    let (_, ramdisk) = config.boot_file_bytes();
    let need = BOOT_KIB + full / TABLES_SHARE + RAMDISK_FACTOR * (ramdisk >> 10);
    // Whole 2 MiB pages: populate-on-demand hands memory out in these.
    need.next_multiple_of(2048).min(full)
}

/// A configuration for a thinly backed domain that is otherwise the same.
pub(super) fn thin_config(ctx: LibxlContext, config: &CrashConfig) -> CrashConfig {
    let mut thin = config.duplicate(ctx);
    let target = thin_kib(config);
    let inner = thin.get_mut();
    inner.b_info.target_memkb = target;
    inner.c_info.domid = INVALID_DOMID;
    thin
}

/// Pages that must be free for a thinly backed domain, paging pool included.
pub(super) fn pages_needed(ctx: LibxlContext, config: &CrashConfig) -> Result<u64, HostError> {
    let mut thin = thin_config(ctx, config);
    let mut kib = 0;
    // SAFETY: libxl fills defaults into our copy and the number.
    let rc = unsafe {
        sys::libxl_domain_need_memory(ctx.raw(), thin.get_mut(), INVALID_DOMID, &mut kib)
    };
    libxl_answer("libxl_domain_need_memory", rc)
        .map(|()| (kib + DOMAIN_STRUCTURES_KIB).div_ceil(KIB_PER_PAGE))
}

/// Builds the domain, paused, and returns its number.
pub(super) fn create(ctx: LibxlContext, thin: &mut CrashConfig) -> Result<u32, HostError> {
    let mut domid = INVALID_DOMID;
    // SAFETY: our copy of the configuration and an out number; null hows make it
    // synchronous and without console callbacks.
    let rc = unsafe {
        sys::libxl_domain_create_new(
            ctx.raw(),
            thin.get_mut(),
            &mut domid,
            std::ptr::null(),
            std::ptr::null(),
        )
    };
    libxl_answer("libxl_domain_create_new", rc).map(|()| domid)
}

/// Linux reads its target when it starts and waits for the balloon to reach it
/// (Linux 6.1, `drivers/xen/balloon.c:768-797`). With the target at the maximum
/// there is nothing to wait for.
pub(super) fn tell_full_target(
    store: &Store,
    domid: u32,
    config: &CrashConfig,
) -> Result<(), HostError> {
    let memory = format!("/local/domain/{domid}/memory");
    let most = store.read(&format!("{memory}/static-max"))?;
    let most = most.unwrap_or_else(|| config.max_kib().to_string());
    store.write(&format!("{memory}/target"), &most)
}

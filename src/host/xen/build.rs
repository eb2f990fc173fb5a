// SPDX-License-Identifier: LGPL-2.1-or-later
//! Building a thinly backed domain with libxl.
#![allow(unsafe_code)]

use super::config::CrashConfig;
use super::libxl::{libxl_answer, LibxlContext, INVALID_DOMID, KIB_PER_PAGE};
use super::sys;
use crate::host::HostError;

/// The hypervisor's own structures for a new domain. KiB.
const DOMAIN_STRUCTURES_KIB: u64 = 4 << 10;

/// Memory that backs a domain of this configuration when it starts, in KiB.
pub(super) fn first_kib(config: &CrashConfig) -> Result<u64, HostError> {
    let kind = config.kind()?;
    Ok(kind.first_kib(config.asked()?, config.ramdisk_bytes()))
}

/// The configuration of a thinly backed domain that is otherwise as `config` describes.
pub(super) fn thin_config(
    ctx: LibxlContext,
    config: &CrashConfig,
) -> Result<CrashConfig, HostError> {
    let mut thin = config.duplicate(ctx);
    let target = first_kib(config)?;
    let inner = thin.get_mut();
    inner.b_info.target_memkb = target;
    inner.c_info.domid = INVALID_DOMID;
    Ok(thin)
}

/// The configuration of a thinly backed domain with all that libxl chooses where nothing
/// was asked for, and the memory that it needs, in KiB.
fn chosen(ctx: LibxlContext, config: &CrashConfig) -> Result<(CrashConfig, u64), HostError> {
    let mut thin = thin_config(ctx, config)?;
    let mut kib = 0;
    // SAFETY: libxl fills defaults into our copy and the number.
    let rc = unsafe {
        sys::libxl_domain_need_memory(ctx.raw(), thin.get_mut(), INVALID_DOMID, &mut kib)
    };
    libxl_answer("libxl_domain_need_memory", rc).map(|()| (thin, kib))
}

/// Pages that must be free for a thinly backed domain, paging pool included.
pub(super) fn pages_needed(ctx: LibxlContext, config: &CrashConfig) -> Result<u64, HostError> {
    chosen(ctx, config).map(|(_, kib)| (kib + DOMAIN_STRUCTURES_KIB).div_ceil(KIB_PER_PAGE))
}

/// What the guest's domains are built with for paging, in KiB. A configuration seldom
/// says, also that of a domain that is there (`relied_on::choices_are_not_kept`).
pub(super) fn pool_kib(ctx: LibxlContext, config: &CrashConfig) -> Result<u64, HostError> {
    chosen(ctx, config).map(|(thin, _)| thin.pool_kib())
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

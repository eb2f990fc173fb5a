// SPDX-License-Identifier: LGPL-2.1-or-later
//! The end of a recovery: its domain gets the rest of its memory, and becomes one like any
//! other.
//!
//! That memory is what the destroyed domain leaves, and nothing else. Xen frees a dead
//! domain's last structures a little later, so this waits for them. A few pages never come
//! back, because Xen's own tables for dom0 grew while both domains lived, and the recovery
//! domain's drivers may still want some. These pages are taken from what the recovery domain
//! has beside its RAM, or, where it has nothing, from that.
#![allow(unsafe_code)]

use std::time::Duration;

use super::config::CrashConfig;
use super::control::Control;
use super::kind::Kind;
use super::libxl::{libxl_answer, LibxlContext, KIB_PER_PAGE};
use super::look::{look_until, Patience};
use super::store::Store;
use super::{build, sys};
use crate::host::{HostError, RecoveryDomain};

/// How long memory of a destroyed domain may take to come back.
const SETTLING: Patience = Patience {
    most: Duration::from_secs(3),
    between: Duration::from_millis(20),
};
/// How long a guest may take until it has given back what its target leaves out: it boots
/// before that. A crashed guest had done so, and its memory is all that there is.
const BALLOONING: Patience = Patience {
    most: Duration::from_secs(600),
    ..SETTLING
};
/// Pages that any domain can do without.
const SURPLUS_PAGES: u64 = 64;
/// Pages of Xen's that a guest takes once its drivers connect (grant table,
/// event channels). Six were measured for one disk and one interface.
const LATER_PAGES: u64 = 16;

/// A recovery domain whose predecessor is gone, and the host that both are on.
pub(super) struct Settlement<'a> {
    pub(super) ctx: LibxlContext,
    pub(super) store: &'a Store,
    pub(super) control: &'a Control,
    pub(super) config: &'a CrashConfig,
    /// Free pages before anything was changed: none of these are taken.
    pub(super) free_before: u64,
}

impl Settlement<'_> {
    /// Gives the domain the rest of its memory, and the targets of an ordinary domain.
    pub(super) fn settle(&self, recovery: &dyn RecoveryDomain) -> Result<(), HostError> {
        let kind = self.config.kind()?;
        let target_kib = match kind.takes_memory() {
            true => self.tell_rest(recovery)? * KIB_PER_PAGE,
            false => {
                self.back_wholly(kind, recovery)?;
                self.config.get().b_info.target_memkb
            }
        };
        let target = i64::try_from(target_kib)
            .map_err(|_| HostError::new("libxl_set_memory_target", "target beyond 63 bits"))?;
        // SAFETY: numbers only; absolute, and enforced on the hypervisor's limit.
        let rc =
            unsafe { sys::libxl_set_memory_target(self.ctx.raw(), recovery.domid(), target, 0, 1) };
        libxl_answer("libxl_set_memory_target", rc)?;
        kind.end_growth(self.control, self.store, recovery.domid())
    }

    /// Backs every address that the guest sees.
    fn back_wholly(&self, kind: Kind, recovery: &dyn RecoveryDomain) -> Result<(), HostError> {
        let missing = || recovery.backing().map(|backing| backing.missing());
        if kind.gives_back(self.store, recovery.domid())? {
            look_until(BALLOONING, || {
                let short = self.shortage(missing()?)?;
                Ok((short <= SURPLUS_PAGES).then_some(()))
            })?;
        }
        let taken = match self.wait_free(missing)? {
            0 => Ok(()),
            short => kind.take_surplus(self.control, recovery.domid(), short),
        };
        // Whatever became of that: a guest must be wholly backed.
        recovery.grow(missing()?)?;
        taken
    }

    /// Tells a guest that takes its memory itself of the rest; says how many pages it has
    /// then.
    fn tell_rest(&self, recovery: &dyn RecoveryDomain) -> Result<u64, HostError> {
        let all = self.pages_asked();
        let missing = || {
            let info = self.control.domain_info(recovery.domid())?;
            Ok(all.saturating_sub(info.tot_pages))
        };
        let short = self.wait_free(missing)?;
        let pages = all.saturating_sub(short.min(SURPLUS_PAGES));
        let told = recovery.backing()?.total;
        recovery.grow(pages.saturating_sub(told))?;
        Ok(pages)
    }

    /// Pages that the guest is to have: what an earlier recovery did without is not missing
    /// from all.
    fn pages_asked(&self) -> u64 {
        let (all, asked) = (
            self.config.full_pages(),
            self.config.get().b_info.target_memkb / KIB_PER_PAGE,
        );
        match all.saturating_sub(asked) <= SURPLUS_PAGES {
            true => all,
            false => asked,
        }
    }

    /// Waits until what is missing is free, or will not be; says how many pages are not
    /// there without taking any that were free before the crash.
    fn wait_free(&self, missing: impl Fn() -> Result<u64, HostError>) -> Result<u64, HostError> {
        let mut short = 0;
        look_until(SETTLING, || {
            short = self.shortage(missing()?)?;
            Ok((short == 0).then_some(()))
        })?;
        Ok(short)
    }

    /// Of so many pages that are missing, and what the guest will want later, those that
    /// are not there without taking any that were free before the crash.
    fn shortage(&self, missing: u64) -> Result<u64, HostError> {
        let spare = self.control.free_pages()?.saturating_sub(self.free_before);
        Ok((missing + LATER_PAGES).saturating_sub(spare))
    }
}

/// Free pages that are not the guest's. What a recovery gave up of its surplus is free,
/// and its successor is built with: else each crash of a guest would leave less for it.
pub(super) fn free_of_others(
    ctx: LibxlContext,
    control: &Control,
    domid: u32,
    config: &CrashConfig,
) -> Result<u64, HostError> {
    let taken = config.kind().and_then(|kind| match kind.takes_memory() {
        // One that is gone has no surplus, and one of another kind never comes so far.
        false => kind.surplus_taken(control, domid, build::pool_kib(ctx, config)?),
        true => {
            let has = control.domain_info(domid)?.tot_pages;
            let fewer = config.full_pages().saturating_sub(has);
            Ok(if fewer <= SURPLUS_PAGES { fewer } else { 0 })
        }
    });
    let free = control.free_pages()?;
    Ok(free.saturating_sub(taken.unwrap_or(0)))
}

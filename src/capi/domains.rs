// SPDX-License-Identifier: LGPL-2.1-or-later
//! Jobs on domains of the real host.
#![allow(unsafe_code)]

use super::abi;
use super::settings::Start;
use super::status::Failure;
use crate::job::Job;

/// A domain as the structs of the header name one.
pub(super) struct Given {
    /// The struct.
    pub(super) name: &'static str,
    pub(super) ctx: *mut abi::libxl__ctx,
    pub(super) config: *mut abi::libxl_domain_config,
    pub(super) domid: u32,
    /// Whether it is only to be handled if its kernel has panicked.
    #[cfg(feature = "xen")]
    pub(super) if_panicked: bool,
    /// What is wrong with the rest of the struct, if anything is.
    pub(super) refused: Option<Failure>,
}

impl Given {
    pub(super) fn domain(domain: &abi::vicover_domain) -> Self {
        Self {
            name: "vicover_domain",
            ctx: domain.ctx,
            config: domain.config,
            domid: domain.domid,
            #[cfg(feature = "xen")]
            if_panicked: false,
            refused: (domain.reserved != 0).then(|| {
                let text = "vicover_domain.reserved must be zero";
                Failure::new(abi::VICOVER_ERR_STRUCT_SIZE, text)
            }),
        }
    }

    pub(super) fn crash(crash: &abi::vicover_crash) -> Self {
        let unknown = crash.flags & !abi::VICOVER_CRASH_IF_PANICKED;
        Self {
            name: "vicover_crash",
            ctx: crash.ctx,
            config: crash.config,
            domid: crash.domid,
            #[cfg(feature = "xen")]
            if_panicked: crash.flags & abi::VICOVER_CRASH_IF_PANICKED != 0,
            refused: (unknown != 0).then(|| {
                let text = format!(
                    "vicover_crash.flags has {unknown:#x}, which this version does not know"
                );
                Failure::new(abi::VICOVER_ERR_OPTION, text)
            }),
        }
    }

    /// Whether it can be a domain at all.
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.check_pointers()?;
        if self.domid == 0 {
            return Err(Failure::new(
                abi::VICOVER_ERR_UNSUPPORTED,
                format!("{}.domid is 0: the domain that we run in", self.name),
            ));
        }
        Ok(())
    }

    fn check_pointers(&self) -> Result<(), Failure> {
        if let Some(refused) = &self.refused {
            return Err(refused.clone());
        }
        if self.ctx.is_null() || self.config.is_null() {
            return Err(Failure::new(
                abi::VICOVER_ERR_NULL,
                format!("{}.ctx and .config must not be null", self.name),
            ));
        }
        // Before a structure of libxl's is looked at.
        #[cfg(feature = "xen")]
        if let Some(why) = crate::host::xen::other_libxl() {
            return Err(Failure::new(abi::VICOVER_ERR_UNSUPPORTED, why));
        }
        Ok(())
    }
}

#[cfg(feature = "xen")]
mod xen {
    use super::{abi, Failure, Given, Job, Start};
    use crate::error::Error;
    use crate::host::xen::{CrashConfig, LibxlContext, XenDomain, XenStandbyHost, XenToolstack};
    use crate::job::JobState;
    use crate::journal::{JournalFile, Past};
    use crate::story::begin;
    use crate::understand;
    use std::ptr::NonNull;
    use std::sync::Arc;

    const OPENING: &str = "opening the domain";

    /// # Safety
    /// `given` holds null pointers or pointers to objects of libxl, of which the
    /// context lives until the job is done.
    unsafe fn objects_of(given: &Given) -> Result<(LibxlContext, CrashConfig), Failure> {
        given.check_pointers()?;
        let null = || Failure::new(abi::VICOVER_ERR_NULL, "ctx and config must not be null");
        let ctx = LibxlContext::new(given.ctx).ok_or_else(null)?;
        let config = NonNull::new(given.config).ok_or_else(null)?;
        // SAFETY: passed on.
        Ok((ctx, unsafe { CrashConfig::copy(ctx, config) }))
    }

    /// Says why a domain, or one that is not there yet, would be declined.
    ///
    /// # Safety
    /// As for [`objects_of`].
    pub(in crate::capi) unsafe fn refusal(given: Given) -> Result<Option<String>, Failure> {
        // SAFETY: passed on.
        let (ctx, config) = unsafe { objects_of(&given)? };
        Ok(config.refusal(ctx, (given.domid != 0).then_some(given.domid)))
    }

    /// Starts to dump a domain that may be running.
    ///
    /// # Safety
    /// As for [`objects_of`].
    pub(in crate::capi) unsafe fn dump(start: Start, given: Given) -> Result<Job, Failure> {
        given.check()?;
        // SAFETY: passed on.
        let (_, config) = unsafe { objects_of(&given)? };
        if let Some(why) = config.unreadable() {
            return Err(Error::Unsupported(why).into());
        }
        let domain = XenDomain::open(given.domid, &config);
        let (target, log) = start.into_target();
        Ok(begin::dump(
            domain.map_err(Error::host(OPENING))?,
            target,
            log,
        )?)
    }

    /// Starts to keep a standby for a running domain; none when the options do not
    /// ask for one.
    ///
    /// # Safety
    /// As for [`objects_of`].
    pub(in crate::capi) unsafe fn keep(start: Start, given: Given) -> Result<Option<Job>, Failure> {
        given.check()?;
        // SAFETY: passed on.
        let (ctx, config) = unsafe { objects_of(&given)? };
        let open = || {
            let host = XenStandbyHost::new(ctx, given.domid);
            host.map_err(Error::host("opening xenstore"))
        };
        let (target, log) = start.into_target();
        let asked = target.options.standby;
        Ok(begin::keep(config.uuid_text(), asked, open, log)?)
    }

    /// Starts to recover a crashed domain, with the standby that `keeper` keeps.
    ///
    /// # Safety
    /// As for [`objects_of`].
    pub(in crate::capi) unsafe fn recover(
        start: Start,
        given: Given,
        keeper: Option<Arc<JobState>>,
    ) -> Result<Job, Failure> {
        given.check()?;
        // SAFETY: passed on.
        let (ctx, config) = unsafe { objects_of(&given)? };
        if let Some(why) = config.refusal(ctx, Some(given.domid)) {
            return Err(Error::Unsupported(why).into());
        }
        let (guest, domid) = (config.uuid_text(), given.domid);
        let panic_line = match given.if_panicked {
            true => {
                let domain = XenDomain::open(domid, &config);
                let line = understand::panic_line(&domain.map_err(Error::host(OPENING))?)?;
                Some(line.ok_or(Error::NotCrashed)?)
            }
            false => None,
        };
        let open = move || {
            let domain = XenDomain::open_crashed(domid, &config);
            let domain = domain.map_err(Error::host(OPENING))?;
            let toolstack = XenToolstack::new(ctx, domid, config);
            let toolstack = toolstack.map_err(Error::host("opening xenstore"))?;
            Ok((domain, Box::new(toolstack) as Box<_>))
        };
        let notes = start.notes.clone();
        let (target, log) = start.into_target();
        Ok(begin::recovery(
            &guest, open, keeper, target, notes, panic_line, log,
        )?)
    }

    /// Goes on with the crash that `past` tells of, which is this process's now; says which
    /// domain crashed.
    ///
    /// # Safety
    /// As for [`objects_of`]; `given.config` is filled.
    pub(in crate::capi) unsafe fn resume(
        start: Start,
        given: &Given,
        past: Past,
        file: JournalFile,
    ) -> Result<Job, Failure> {
        let null = || Failure::new(abi::VICOVER_ERR_NULL, "ctx and config must not be null");
        let ctx = LibxlContext::new(given.ctx).ok_or_else(null)?;
        let config = NonNull::new(given.config).ok_or_else(null)?;
        let domid = past.begun.domid;
        let opened = XenToolstack::resume(ctx, domid, &past.begun.host);
        let (toolstack, is_there) = opened.map_err(Error::host(OPENING))?;
        // SAFETY: initialised, and the caller's alone.
        unsafe { toolstack.config().copy_into(ctx, config) };
        let open = move || {
            let domain = is_there.then(|| XenDomain::open_crashed(domid, toolstack.config()));
            let domain = domain.transpose().map_err(Error::host(OPENING))?;
            Ok((domain, Box::new(toolstack) as Box<_>))
        };
        let (target, log) = start.into_target();
        Ok(begin::resumption(past, open, file, target, log)?)
    }
}

#[cfg(feature = "xen")]
pub(super) use xen::{dump, keep, recover, refusal, resume};

#[cfg(not(feature = "xen"))]
mod no_xen {
    use super::{Failure, Given, Job, Start};
    use crate::error::Error;
    use crate::job::JobState;
    use crate::journal::{JournalFile, Past};
    use std::sync::Arc;

    fn no_xen() -> Failure {
        Error::Unsupported("this libvicover was built without Xen".into()).into()
    }

    /// # Safety
    /// None: it refuses.
    pub(in crate::capi) unsafe fn refusal(given: Given) -> Result<Option<String>, Failure> {
        given.check_pointers()?;
        Err(no_xen())
    }

    /// # Safety
    /// None: it refuses.
    pub(in crate::capi) unsafe fn dump(_start: Start, given: Given) -> Result<Job, Failure> {
        given.check()?;
        Err(no_xen())
    }

    /// # Safety
    /// None: it refuses.
    pub(in crate::capi) unsafe fn keep(start: Start, given: Given) -> Result<Option<Job>, Failure> {
        // SAFETY: as above.
        unsafe { dump(start, given).map(Some) }
    }

    /// # Safety
    /// None: it refuses.
    pub(in crate::capi) unsafe fn resume(
        _start: Start,
        given: &Given,
        _past: Past,
        _file: JournalFile,
    ) -> Result<Job, Failure> {
        given.check_pointers()?;
        Err(no_xen())
    }

    /// # Safety
    /// None: it refuses.
    pub(in crate::capi) unsafe fn recover(
        start: Start,
        given: Given,
        _keeper: Option<Arc<JobState>>,
    ) -> Result<Job, Failure> {
        // SAFETY: as above.
        unsafe { dump(start, given) }
    }
}

#[cfg(not(feature = "xen"))]
pub(super) use no_xen::{dump, keep, recover, refusal, resume};

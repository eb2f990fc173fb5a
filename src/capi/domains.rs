// SPDX-License-Identifier: LGPL-2.1-or-later
//! Jobs on domains of the real host.
#![allow(unsafe_code)]

use super::abi;
use super::input::Start;
use super::status::Failure;
use crate::job::Job;

/// A domain as the structs of the header name one.
pub(super) struct Given {
    /// The struct.
    pub(super) name: &'static str,
    pub(super) ctx: *mut abi::libxl__ctx,
    pub(super) config: *mut abi::libxl_domain_config,
    pub(super) domid: u32,
    pub(super) reserved: u32,
}

impl Given {
    pub(super) fn domain(domain: &abi::vicover_domain) -> Self {
        Self {
            name: "vicover_domain",
            ctx: domain.ctx,
            config: domain.config,
            domid: domain.domid,
            reserved: domain.reserved,
        }
    }

    /// Whether it can be a domain at all.
    fn check(&self) -> Result<(), Failure> {
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
        if self.reserved != 0 {
            return Err(Failure::new(
                abi::VICOVER_ERR_STRUCT_SIZE,
                format!("{}.reserved must be zero", self.name),
            ));
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
    use crate::story::begin;
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
        let open = move || {
            let domain = XenDomain::open_crashed(domid, &config);
            let domain = domain.map_err(Error::host(OPENING))?;
            let toolstack = XenToolstack::new(ctx, domid, config);
            let toolstack = toolstack.map_err(Error::host("opening xenstore"))?;
            Ok((domain, Box::new(toolstack) as Box<_>))
        };
        let (target, log) = start.into_target();
        Ok(begin::recovery(&guest, open, keeper, target, log)?)
    }
}

#[cfg(feature = "xen")]
pub(super) use xen::{dump, keep, recover, refusal};

#[cfg(not(feature = "xen"))]
mod no_xen {
    use super::{Failure, Given, Job, Start};
    use crate::error::Error;
    use crate::job::JobState;
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
pub(super) use no_xen::{dump, keep, recover, refusal};

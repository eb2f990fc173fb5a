// SPDX-License-Identifier: LGPL-2.1-or-later
//! libxl: setting the crashed domain aside, building and settling its successor.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::sync::Arc;
use std::thread;

use super::background::Background;
use super::config::CrashConfig;
use super::control::Control;
use super::libxl::{joined, libxl_answer, no_thread, LibxlContext, KIB_PER_PAGE};
use super::past::{self, Told};
use super::recovery::XenRecovery;
use super::settle::{free_of_others, Settlement};
use super::store::Store;
use super::uuid::Uuid;
use super::{attach, build, destroy, detach, standby, sys};
use crate::host::{
    BuiltStandby, Description, FoundRecovery, HostError, RecoveryDomain, Requirement, Toolstack,
};
use crate::os::thread::{start_in, Signals};

/// libxl, acting for one crash.
pub struct XenToolstack {
    ctx: LibxlContext,
    crashed: u32,
    config: CrashConfig,
    store: Store,
    control: Control,
    /// What came of giving a standby the crashed domain's identity.
    identity: Option<Result<(), HostError>>,
    /// The crashed domain still has its interfaces; its standby has its own.
    has_interfaces: bool,
    /// Devices of the crashed domain: what is left to do when they have gone.
    leaving: Background,
    /// Devices of the recovery domain: what is left to do when they can be used.
    coming: Background,
    /// Free pages before anything was changed: other domains' business, of which
    /// nothing is taken.
    free_before: u64,
    /// The crashed domain was there when this process began. Its number may be another
    /// domain's where it was not.
    is_there: bool,
}

impl XenToolstack {
    /// Acts with the caller's context on the crashed domain `domid`.
    pub fn new(ctx: LibxlContext, domid: u32, config: CrashConfig) -> Result<Self, HostError> {
        let control = Control::open()?;
        let free_before = free_of_others(ctx, &control, domid, &config)?;
        Ok(Self {
            ctx,
            crashed: domid,
            config,
            free_before,
            store: Store::open()?,
            identity: None,
            has_interfaces: false,
            leaving: Background::default(),
            coming: Background::default(),
            is_there: true,
            control,
        })
    }

    /// Acts on a crash that another process has begun to handle, as that has told in
    /// `text`; says whether the crashed domain is there.
    pub fn resume(ctx: LibxlContext, domid: u32, text: &str) -> Result<(Self, bool), HostError> {
        let told = Told::read(text)?;
        let mut this = Self::new(ctx, domid, told.config(ctx)?)?;
        this.free_before = told.free_before;
        this.is_there = told.is_there(&this.store, &this.control, domid)?;
        let is_there = this.is_there;
        Ok((this, is_there))
    }

    /// The crashed domain's configuration.
    pub fn config(&self) -> &CrashConfig {
        &self.config
    }

    fn status_path(&self) -> String {
        format!("/tool/vicover/{}", self.config.uuid_text())
    }

    /// What is added to the crashed domain's name.
    fn suffix(&self) -> String {
        format!("-crashed-{}", self.crashed)
    }

    /// Renames the crashed domain and moves its `/vm` node, so that its
    /// successor can have both.
    fn set_aside(&mut self) -> Result<(), HostError> {
        let suffix = CString::new(self.suffix())
            .map_err(|_| HostError::new("libxl_domain_preserve", "NUL in a number"))?;
        let uuid = Uuid::generate().0;
        // SAFETY: our configuration and the suffix are valid for the call.
        let rc = unsafe {
            sys::libxl_domain_preserve(
                self.ctx.raw(),
                self.crashed,
                &mut self.config.get_mut().c_info,
                suffix.as_ptr(),
                uuid,
            )
        };
        libxl_answer("libxl_domain_preserve", rc)
    }

    /// Whether [`XenToolstack::set_aside`] has been done, by whomever.
    fn is_set_aside(&self) -> Result<bool, HostError> {
        let name = format!("/local/domain/{}/name", self.crashed);
        Ok(self.store.read(&name)? == Some(self.crashed_name()))
    }

    fn destroy(&self, domid: u32) -> Result<(), HostError> {
        destroy::destroy(self.ctx, domid)
    }
}

impl Toolstack for XenToolstack {
    fn describe(&mut self) -> Result<Description, HostError> {
        let (ctx, store, config) = (self.ctx, &self.store, &self.config);
        Ok(Description {
            uuid: config.uuid_text(),
            domid: self.crashed,
            text: past::describe(ctx, store, config, self.crashed, self.free_before)?,
        })
    }

    fn find_recovery(&mut self) -> Result<Option<FoundRecovery>, HostError> {
        past::find_recovery(&self.store, &self.control, &self.config, self.crashed)
    }

    fn complete_devices(&mut self, recovery: &dyn RecoveryDomain) -> Result<(), HostError> {
        let calls = attach::complete_nics(self.ctx, &self.config, recovery.domid())?;
        self.coming.append(calls);
        Ok(())
    }

    fn detach(&mut self, standby: Option<&BuiltStandby>) -> Result<(), HostError> {
        if self.is_set_aside()? {
            // Some of the rest has been done as well, and leaves less to be seen.
            self.leaving = detach::detach_again(self.ctx, &self.store, self.crashed, &self.config)?;
            return Ok(());
        }
        self.set_aside()?;
        let (ctx, crashed, config) = (self.ctx, self.crashed, &self.config);
        let Some(standby) = standby else {
            self.leaving = detach::detach(ctx, &self.store, crashed, config, true)?;
            return Ok(());
        };
        // The standby needs none of the devices to get its name. A connection to
        // xenstore is for one thread.
        let own = Store::open()?;
        let copy = config.duplicate(ctx);
        self.has_interfaces = config.nics_can_be_twice();
        let with_nics = !self.has_interfaces;
        let (detached, identity) = thread::scope(|scope| {
            let detach = move || detach::detach(ctx, &own, crashed, &copy, with_nics);
            let detached = start_in(scope, "vicover-detach", Signals::AsTheProgram, detach);
            let (store, control) = (&self.store, &self.control);
            let identity = standby::take_identity(ctx, store, control, config, standby.domid);
            let detached = detached.map_err(no_thread);
            (detached.and_then(|call| joined("detach", call)), identity)
        });
        self.identity = Some(identity);
        self.leaving = detached?;
        Ok(())
    }

    fn detach_interfaces(&mut self) -> Result<(), HostError> {
        if std::mem::take(&mut self.has_interfaces) {
            let gone = detach::detach_nics(self.ctx, self.crashed, &self.config)?;
            self.leaving.append(gone);
        }
        Ok(())
    }

    fn requirement(&mut self) -> Result<Requirement, HostError> {
        Ok(Requirement {
            free_pages: build::pages_needed(self.ctx, &self.config)?,
            backed_pages: build::first_kib(&self.config)? / KIB_PER_PAGE,
            full_pages: self.config.full_pages(),
        })
    }

    fn create(&mut self) -> Result<Arc<dyn RecoveryDomain>, HostError> {
        let mut thin = build::thin_config(self.ctx, &self.config)?;
        let has_devices = self.config.why_built_with_disks().is_some();
        if has_devices {
            // Its hotplug scripts come after those of the crashed domain.
            self.leaving.finish()?;
        } else {
            thin.remove_devices();
        }
        let kind = self.config.kind()?;
        let domid = build::create(self.ctx, &mut thin)?;
        kind.tell_target(&self.store, domid, self.crashed)
            .and_then(|()| match has_devices {
                true => Ok(Background::default()),
                false => {
                    let domids = (domid, self.crashed);
                    attach::attach(self.ctx, &self.store, &self.config, domids, true)
                }
            })
            .map(|calls| self.coming = calls)
            .and_then(|()| XenRecovery::new(domid, &self.config))
            .map(|recovery| Arc::new(recovery) as Arc<dyn RecoveryDomain>)
            .inspect_err(|_| {
                // Best effort: the reason for failing is the one to report.
                let _ = self.destroy(domid);
            })
    }

    fn recipe(&mut self) -> Result<String, HostError> {
        standby::recipe(self.ctx, &self.config)
    }

    fn adopt(&mut self, standby: &BuiltStandby) -> Result<Arc<dyn RecoveryDomain>, HostError> {
        let identity = self.identity.take().unwrap_or_else(|| {
            let why = format!("domain {} was not there for the detach", standby.domid);
            Err(HostError::new("standby", why))
        });
        let domids = (standby.domid, self.crashed);
        let adopted = standby::adopt(self.ctx, &self.store, &self.config, domids, identity);
        adopted.map(|(recovery, calls)| {
            self.coming = calls;
            recovery
        })
    }

    fn forgo(&mut self, standby: &BuiltStandby) -> Result<(), HostError> {
        standby::forgo(self.ctx, &self.store, &self.config, standby.domid)
    }

    fn start(&mut self, recovery: &dyn RecoveryDomain) -> Result<(), HostError> {
        // SAFETY: null `ao_how` makes it synchronous.
        let rc = unsafe {
            sys::libxl_domain_unpause(self.ctx.raw(), recovery.domid(), std::ptr::null())
        };
        libxl_answer("libxl_domain_unpause", rc)
    }

    fn discard(&mut self, recovery: &dyn RecoveryDomain) -> Result<(), HostError> {
        let added = self.coming.finish();
        self.destroy(recovery.domid()).and(added)
    }

    fn crashed_name(&self) -> String {
        format!("{}{}", self.config.name(), self.suffix())
    }

    fn destroy_crashed(&mut self) -> Result<(), HostError> {
        let gone = self.leaving.finish();
        match self.is_there {
            true => self.destroy(self.crashed).and(gone),
            false => gone,
        }
    }

    fn settle(&mut self, recovery: &dyn RecoveryDomain) -> Result<(), HostError> {
        let settlement = Settlement {
            ctx: self.ctx,
            store: &self.store,
            control: &self.control,
            config: &self.config,
            free_before: self.free_before,
        };
        settlement.settle(recovery)?;
        self.coming.finish()
    }

    fn publish(&mut self, key: &str, value: &str) {
        // Only for onlookers: a crash is handled just as well without them.
        let _ = self
            .store
            .write(&format!("{}/{key}", self.status_path()), value);
    }
}

impl Drop for XenToolstack {
    fn drop(&mut self) {
        let _ = self.store.remove(&self.status_path());
    }
}

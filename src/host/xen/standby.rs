// SPDX-License-Identifier: LGPL-2.1-or-later
//! Standbys: domains built before a crash, and made the recovery domain after it.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::background::Background;
use super::config::CrashConfig;
use super::control::Control;
use super::kind::Kind;
use super::libxl::{libxl_answer, text_of, LibxlContext, INVALID_DOMID};
use super::look::{look_until, Patience};
use super::recovery::XenRecovery;
use super::store::Store;
use super::{attach, build, destroy, sys};
use crate::host::{BuiltStandby, HostError, RecoveryDomain, StandbyHost};
use crate::pacing::guard::LOW_PAGES;
use crate::pacing::idle::IdleDetector;

/// How long a standby may take to boot until it waits for its disk.
const PATIENCE: Patience = Patience {
    most: Duration::from_secs(120),
    between: Duration::from_millis(10),
};
/// Whether a standby waits is judged by its use of a processor over this long.
const SPAN: Duration = Duration::from_secs(1);
/// A guest that looks for its disk now and then uses less than one part in so many.
const IDLE_PART: u32 = 3;

/// Whose data a domain's configuration is, among what libxl stores for a domain.
const CONFIG_USERID: &CStr = c"libxl-json";

fn refused(what: impl Into<String>) -> HostError {
    HostError::new("standby", what)
}

/// What a standby is called while it is one.
fn standby_name(guest: &str) -> String {
    format!("{guest}-standby")
}

/// Says in xenstore that a domain is a standby of ours, and whose.
fn mark(domid: u32) -> String {
    format!("/tool/vicover/standby/{domid}")
}

/// Builds standbys for one running domain.
pub struct XenStandbyHost {
    ctx: LibxlContext,
    running: u32,
    store: Store,
    control: Control,
}

impl XenStandbyHost {
    /// For the domain `running`, with the caller's context.
    pub fn new(ctx: LibxlContext, running: u32) -> Result<Self, HostError> {
        Ok(Self {
            ctx,
            running,
            store: Store::open()?,
            control: Control::open()?,
        })
    }

    fn config(&self) -> Result<CrashConfig, HostError> {
        CrashConfig::retrieve(self.ctx, self.running)
    }

    /// Refuses what cannot work, before anything is built.
    fn check(&self, config: &CrashConfig) -> Result<(), HostError> {
        if let Some(why) = config.refusal(self.ctx, Some(self.running)) {
            return Err(refused(why));
        }
        if let Some(why) = config.kind()?.why_no_standby() {
            return Err(refused(why));
        }
        if let Some(why) = config.why_built_with_disks() {
            return Err(refused(format!("{why}, and a standby has no disk")));
        }
        let needed = build::pages_needed(self.ctx, config)?;
        let room = self.control.unclaimed_pages()?;
        if room < needed {
            return Err(refused(format!(
                "no room: it needs {} MiB, the host has {} MiB free",
                needed.div_ceil(256),
                room / 256
            )));
        }
        Ok(())
    }

    /// Removes a standby that a process left behind when it was killed.
    fn remove_stale(&self, name: &str) -> Result<(), HostError> {
        let c_name = c_text(name)?;
        let mut domid = INVALID_DOMID;
        // SAFETY: a terminated name and an out number.
        let rc = unsafe { sys::libxl_name_to_domid(self.ctx.raw(), c_name.as_ptr(), &mut domid) };
        if rc != 0 {
            return Ok(());
        }
        match self.store.read(&mark(domid))? {
            Some(_) => self.destroy(domid),
            None => Err(refused(format!("domain {domid} is called {name} already"))),
        }
    }

    fn destroy(&self, domid: u32) -> Result<(), HostError> {
        destroy(self.ctx, &self.store, domid)
    }

    /// Lets a standby run until it waits for its disk.
    fn boot(&self, domid: u32, kind: Kind, stop: &dyn Fn() -> bool) -> Result<(), HostError> {
        // SAFETY: null `ao_how` makes it synchronous.
        let rc = unsafe { sys::libxl_domain_unpause(self.ctx.raw(), domid, std::ptr::null()) };
        libxl_answer("libxl_domain_unpause", rc)?;
        self.wait_idle(domid, kind, stop)?;
        self.control.pause(domid)
    }

    fn wait_idle(&self, domid: u32, kind: Kind, stop: &dyn Fn() -> bool) -> Result<(), HostError> {
        let began = Instant::now();
        let mut idle = IdleDetector::new(Duration::ZERO, SPAN, IDLE_PART);
        let waits = look_until(PATIENCE, || {
            if stop() {
                return Err(refused("not wanted any more"));
            }
            let info = self.control.domain_info(domid)?;
            if info.flags & xenctrl_sys::XEN_DOMINF_shutdown != 0 {
                return Err(refused("the guest ended instead of waiting for its disk"));
            }
            // A guest that touches more than it has is ended. One so near to that goes
            // on at the crash, when there is memory for it.
            if kind.backing(&self.control, &self.store, domid)?.spare < LOW_PAGES {
                return Ok(Some(()));
            }
            let used = Duration::from_nanos(info.cpu_time);
            let is_idle = idle.look(began.elapsed(), used) == Some(true);
            Ok(is_idle.then_some(()))
        })?;
        waits.ok_or_else(|| {
            refused(format!(
                "the guest still kept a processor busy after {} s",
                PATIENCE.most.as_secs()
            ))
        })
    }

    /// Makes a standby of a domain that was just built and, on request, boots it. When
    /// the standby is stopped for good it gets what interfaces it may have already:
    /// none that it could send through. What fails is for the caller to remove.
    fn finish(
        &self,
        domid: u32,
        config: &CrashConfig,
        boot: bool,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), HostError> {
        self.store.write(&mark(domid), &config.uuid_text())?;
        let kind = config.kind()?;
        kind.tell_target(&self.store, domid, self.running)?;
        if boot {
            self.boot(domid, kind, stop)?;
        }
        match config.nics_can_be_twice() {
            true => attach::attach_nics(self.ctx, config.nics_of(self.ctx), domid),
            false => Ok(()),
        }
    }
}

impl StandbyHost for XenStandbyHost {
    fn build(&mut self, boot: bool, stop: &dyn Fn() -> bool) -> Result<BuiltStandby, HostError> {
        let config = self.config()?;
        let name = standby_name(config.name());
        self.remove_stale(&name)?;
        self.check(&config)?;
        let recipe = recipe(self.ctx, &config)?;
        let before = self.control.free_pages()?;
        let mut thin = build::thin_config(self.ctx, &config)?;
        thin.remove_devices();
        thin.rename(&name)?;
        thin.new_uuid();
        let domid = build::create(self.ctx, &mut thin)?;
        if let Err(error) = self.finish(domid, &config, boot, stop) {
            // Best effort: the reason for failing is the one to report.
            let _ = self.destroy(domid);
            return Err(error);
        }
        Ok(BuiltStandby {
            domid,
            pages: before.saturating_sub(self.control.free_pages()?),
            recipe,
        })
    }

    fn recipe(&mut self) -> Result<String, HostError> {
        recipe(self.ctx, &self.config()?)
    }

    fn discard(&mut self, standby: &BuiltStandby) -> Result<(), HostError> {
        self.destroy(standby.domid)
    }
}

/// What a standby of this configuration is built from: the configuration without
/// what moves over at a crash, and the files it boots from as they are now.
pub(super) fn recipe(ctx: LibxlContext, config: &CrashConfig) -> Result<String, HostError> {
    let mut text = config.build_text(ctx)?;
    if config.nics_can_be_twice() {
        text.push_str(&config.nics_text(ctx)?);
    }
    let build = &config.get().b_info;
    for file in [build.kernel, build.ramdisk] {
        let Some(file) = text_of(file) else { continue };
        let of = fs::metadata(Path::new(file))
            .map_err(|error| refused(format!("looking at {file}: {error}")))?;
        let (size, seconds, nanos) = (of.len(), of.mtime(), of.mtime_nsec());
        let (device, inode) = (of.dev(), of.ino());
        text.push_str(&format!(
            "{file} {device} {inode} {size} {seconds}.{nanos}\n"
        ));
    }
    Ok(text)
}

/// Destroys a standby of the guest that `config` describes, if the domain still is one.
pub(super) fn forgo(
    ctx: LibxlContext,
    store: &Store,
    config: &CrashConfig,
    domid: u32,
) -> Result<(), HostError> {
    match store.read(&mark(domid))? == Some(config.uuid_text()) {
        true => destroy(ctx, store, domid),
        false => Ok(()),
    }
}

/// Destroys a standby and what marks it as one.
pub(super) fn destroy(ctx: LibxlContext, store: &Store, domid: u32) -> Result<(), HostError> {
    destroy::destroy(ctx, domid)?;
    store.remove(&mark(domid))
}

/// Makes a standby the successor of the domain `crashed`, which `config` describes
/// and which has lost its disks before. `identity` is what came of
/// [`take_identity`]. What comes back beside the successor goes on in the background.
pub(super) fn adopt(
    ctx: LibxlContext,
    store: &Store,
    config: &CrashConfig,
    (domid, crashed): (u32, u32),
    identity: Result<(), HostError>,
) -> Result<(Arc<dyn RecoveryDomain>, Background), HostError> {
    let with_nics = !config.nics_can_be_twice();
    let adopted = identity
        .and_then(|()| attach::attach(ctx, store, config, (domid, crashed), with_nics))
        .and_then(|calls| store.remove(&mark(domid)).map(|()| calls))
        .and_then(|calls| Ok((XenRecovery::new(domid, config)?, calls)));
    match adopted {
        Ok((recovery, calls)) => Ok((Arc::new(recovery), calls)),
        Err(error) => {
            // It has not run since it got disks: nothing is under way to any.
            destroy(ctx, store, domid)?;
            Err(error)
        }
    }
}

/// Gives a standby the crashed domain's name and uuid, in the hypervisor, in xenstore
/// and in what libxl keeps of the standby. The crashed domain has lost them before.
pub(super) fn take_identity(
    ctx: LibxlContext,
    store: &Store,
    control: &Control,
    config: &CrashConfig,
    domid: u32,
) -> Result<(), HostError> {
    let raw = ctx.raw();
    let own_vm = store.read(&format!("/local/domain/{domid}/vm"))?;
    let mut bare = config.duplicate(ctx);
    bare.remove_disks();
    if !config.nics_can_be_twice() {
        bare.remove_nics();
    }
    bare.get_mut().c_info.domid = INVALID_DOMID;
    let text = bare.to_text(ctx)?;
    let length = i32::try_from(text.as_bytes_with_nul().len())
        .map_err(|_| refused("a configuration beyond 2 GiB"))?;

    // libxl keeps a domain's configuration under domid and uuid: the file moves
    // when the uuid changes. Adding devices adds them to it.
    // SAFETY: a terminated text.
    let rc = unsafe { sys::libxl_userdata_unlink(raw, domid, CONFIG_USERID.as_ptr()) };
    libxl_answer("libxl_userdata_unlink", rc)?;
    control.set_handle(domid, &config.get().c_info.uuid.uuid)?;
    let data = text.as_ptr().cast();
    // SAFETY: a terminated text, and a buffer with its length.
    let rc = unsafe { sys::libxl_userdata_store(raw, domid, CONFIG_USERID.as_ptr(), data, length) };
    libxl_answer("libxl_userdata_store", rc)?;

    // Gives it the `/vm` node that the crashed domain has left.
    let (old, new) = (standby_name(config.name()), config.name());
    bare.rename(&old)?;
    let (info, suffix) = (&mut bare.get_mut().c_info, c"".as_ptr());
    // SAFETY: our own copy, of which the name is read, and a terminated text.
    let rc =
        unsafe { sys::libxl_domain_preserve(raw, domid, info, suffix, config.get().c_info.uuid) };
    libxl_answer("libxl_domain_preserve", rc)?;
    let (old, new) = (c_text(&old)?, c_text(new)?);
    // SAFETY: terminated texts.
    let rc = unsafe { sys::libxl_domain_rename(raw, domid, old.as_ptr(), new.as_ptr()) };
    libxl_answer("libxl_domain_rename", rc)?;
    own_vm.map_or(Ok(()), |vm| store.remove(&vm))
}

fn c_text(text: &str) -> Result<CString, HostError> {
    CString::new(text).map_err(|_| refused(format!("NUL in {text:?}")))
}

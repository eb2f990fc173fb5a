// SPDX-License-Identifier: LGPL-2.1-or-later
//! Taking the disks and interfaces from the crashed domain, and waiting until
//! none of them can write any more.
//!
//! The hotplug script that libxl runs after that takes longer than all the rest.
//! Where nothing depends on what it does, it is not waited for.

use std::time::Duration;

use super::background::{Background, Call};
use super::bus::{self, Trace};
use super::config::CrashConfig;
use super::device_model::DeviceModel;
use super::devices::{Disk, Nic};
use super::disk;
use super::libxl::LibxlContext;
use super::look::{look_until, Patience};
use super::store::Store;
use crate::host::HostError;

/// How long backends may take to let go before recovery is given up. sysfs cannot be
/// waited on, so it is looked at.
const PATIENCE: Patience = Patience {
    most: Duration::from_secs(60),
    between: Duration::from_millis(5),
};

/// What is being taken from a domain, all at once.
#[derive(Default)]
struct Leaving {
    traces: Vec<Trace>,
    /// Calls whose scripts somebody depends on.
    awaited: Background,
    others: Background,
}

impl Leaving {
    /// Starts to remove a device.
    fn remove(
        &mut self,
        trace: Trace,
        is_awaited: bool,
        call: impl FnOnce() -> Result<(), HostError> + Send + 'static,
    ) -> Result<(), HostError> {
        let call = Call::start(call)?;
        self.traces.push(trace);
        match is_awaited {
            true => self.awaited.push(call),
            false => self.others.push(call),
        }
        Ok(())
    }

    /// Waits until every device has gone. What comes back are scripts.
    fn gone(mut self) -> Result<Background, HostError> {
        self.awaited.finish()?;
        self.traces.iter().try_for_each(wait_gone)?;
        Ok(self.others)
    }
}

/// Removes every disk of `domid`, a domain that `config` describes, and on request
/// every interface, and waits until they have gone.
pub(super) fn detach(
    ctx: LibxlContext,
    store: &Store,
    domid: u32,
    config: &CrashConfig,
    with_nics: bool,
) -> Result<Background, HostError> {
    let mut leaving = Leaving::default();
    remove_disks(ctx, store, domid, config, &mut leaving)?;
    if config.kind()?.has_device_model() {
        let model = DeviceModel::required(store, domid)?;
        leaving.traces.push(model.end()?);
    }
    if with_nics {
        remove_nics(ctx, domid, config, &mut leaving)?;
    }
    leaving.gone()
}

/// Removes what devices `domid` still has after another process has begun to remove
/// them, and waits until all have gone, those included that leave nothing to be listed.
pub(super) fn detach_again(
    ctx: LibxlContext,
    store: &Store,
    domid: u32,
    config: &CrashConfig,
) -> Result<Background, HostError> {
    let known: Vec<Trace> = config.disks_of(ctx).iter().filter_map(disk::busy).collect();
    let model = DeviceModel::of(store, domid)?;
    let model = model.map(DeviceModel::end).transpose()?;
    let calls = detach(ctx, store, domid, config, true)?;
    bus::all_of(domid)
        .iter()
        .chain(&known)
        .chain(&model)
        .try_for_each(wait_gone)?;
    Ok(calls)
}

/// Removes the interfaces of `domid`, a domain that `config` describes, and waits until
/// they have gone.
pub(super) fn detach_nics(
    ctx: LibxlContext,
    domid: u32,
    config: &CrashConfig,
) -> Result<Background, HostError> {
    let mut leaving = Leaving::default();
    remove_nics(ctx, domid, config, &mut leaving)?;
    leaving.gone()
}

fn remove_disks(
    ctx: LibxlContext,
    store: &Store,
    domid: u32,
    config: &CrashConfig,
    leaving: &mut Leaving,
) -> Result<(), HostError> {
    let known = config.disks_of(ctx);
    // All are looked up before the first is taken: with QEMU its disks go from xenstore.
    let numbered = |disk: Disk| Ok((disk.number(ctx, domid)?, disk));
    let all: Result<Vec<_>, HostError> =
        Disk::all_of(ctx, domid).into_iter().map(numbered).collect();
    for (number, mut disk) in all? {
        let trace = disk::trace(store, domid, number)?;
        // QEMU's disks have no script.
        let is_handed_on = disk.is_qemus()
            || known
                .iter()
                .any(|known| known.name() == disk.name() && disk::is_handed_on(known));
        leaving.remove(trace, !is_handed_on, move || disk.destroy(ctx, domid))?;
    }
    Ok(())
}

fn remove_nics(
    ctx: LibxlContext,
    domid: u32,
    config: &CrashConfig,
    leaving: &mut Leaving,
) -> Result<(), HostError> {
    let waits = !config.nics_can_be_twice();
    for mut nic in Nic::all_of(ctx, domid) {
        let trace = Trace::of("vif", domid, nic.number());
        leaving.remove(trace, waits, move || nic.destroy(ctx, domid))?;
    }
    Ok(())
}

fn wait_gone(trace: &Trace) -> Result<(), HostError> {
    let mut left = None;
    let gone = look_until(PATIENCE, || {
        left = (trace.left)();
        Ok(left.is_none().then_some(()))
    })?;
    gone.ok_or_else(|| {
        let (label, seconds) = (&trace.label, PATIENCE.most.as_secs());
        let why = left.unwrap_or_default();
        let what = format!("{label} did not let go in {seconds} s: {why}");
        HostError::new("detach", what)
    })
}

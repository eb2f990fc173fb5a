// SPDX-License-Identifier: LGPL-2.1-or-later
//! Giving a domain, while it is stopped, the disks and interfaces of the guest that
//! it takes the place of.
//!
//! An interface may be there while the guest still has its own: as long as the
//! domain is stopped, its frontend does not connect, netback keeps the carrier off,
//! and the bridge sends nothing there. A disk may not: one writer.
//!
//! An interface's hotplug script need not have ended when the domain starts. The
//! guest only has to find the interface when it looks, and can use it
//! (`relied_on::interface_needs_no_script`); what it sends is lost until the script
//! has added the other end to a bridge. So a script that is late, whatever
//! for, costs neither the domain nor its memory.

use std::path::Path;
use std::time::Duration;

use super::background::{Background, Call};
use super::config::CrashConfig;
use super::devices::Nic;
use super::disk;
use super::libxl::LibxlContext;
use super::look::{look_until, Patience};
use super::store::Store;
use crate::host::HostError;
use crate::os::fd::{entries, read_text};

/// How long a hotplug script may take whose process was killed: as long as libxl gives
/// it. Nobody tells when such a script ends.
const SCRIPT: Patience = Patience {
    most: Duration::from_secs(40),
    between: Duration::from_millis(50),
};

/// Gives a domain the disks that `crashed` has had, and the interfaces on request.
/// When this returns the disks can be used and the interfaces be found; what comes
/// back are libxl's calls, whose scripts go on.
pub(super) fn attach(
    ctx: LibxlContext,
    store: &Store,
    config: &CrashConfig,
    (domid, crashed): (u32, u32),
    with_nics: bool,
) -> Result<Background, HostError> {
    let mut calls = Background::default();
    for disk in config.disks_of(ctx) {
        disk::attach(ctx, store, disk, (domid, crashed), &mut calls)?;
    }
    if with_nics {
        // Their scripts take processors, and the domain can start without them.
        for nic in config.nics_of(ctx) {
            let node = format!("/local/domain/{domid}/device/vif/{}/state", nic.number());
            let call = Call::start(move || attach_nic(ctx, nic, domid))?;
            let shown = call.wait_for("an interface does not appear", || store.read(&node));
            calls.push(call);
            shown?;
        }
    }
    Ok(calls)
}

/// Gives a domain an interface. When libxl ends the script for taking too long, the guest
/// loses the interface and gets it anew: better than none.
fn attach_nic(ctx: LibxlContext, mut nic: Nic, domid: u32) -> Result<(), HostError> {
    nic.add(ctx, domid).or_else(|_| {
        nic.destroy(ctx, domid)?;
        nic.add(ctx, domid)
    })
}

/// Sees to it that the interfaces of a running domain can be used although the process
/// that gave them to it was killed. What comes back goes on.
pub(super) fn complete_nics(
    ctx: LibxlContext,
    config: &CrashConfig,
    domid: u32,
) -> Result<Background, HostError> {
    let mut calls = Background::default();
    for nic in config.nics_of(ctx) {
        let store = Store::open()?;
        calls.push(Call::start(move || complete_nic(ctx, &store, nic, domid))?);
    }
    Ok(calls)
}

/// An interface whose hotplug script runs is left to that, which outlives its process.
/// Where none has run, the guest gets the interface anew: at once, so that a guest that
/// boots finds the new one only.
fn complete_nic(
    ctx: LibxlContext,
    store: &Store,
    mut nic: Nic,
    domid: u32,
) -> Result<(), HostError> {
    let place = format!("backend/vif/{domid}/{}", nic.number());
    let status = format!("/local/domain/0/{place}/hotplug-status");
    let done = look_until(SCRIPT, || {
        // Looked at first: what a script does that ends meanwhile is seen.
        let runs = script_runs(&place);
        let is_connected = store.read(&status)?.as_deref() == Some("connected");
        Ok((is_connected || !runs).then_some(is_connected))
    })?;
    match done {
        Some(true) => Ok(()),
        _ => nic.destroy(ctx, domid).and_then(|()| nic.add(ctx, domid)),
    }
}

/// Whether a hotplug script runs for the backend at `place`, which libxl names in the
/// script's environment (`relied_on::scripts_know_their_backend`).
fn script_runs(place: &str) -> bool {
    let all = entries(Path::new("/proc")).unwrap_or_default();
    all.iter().any(|process| {
        let environment = read_text(&process.join("environ"), 1 << 20).unwrap_or_default();
        let mut variables = environment.split('\0');
        variables.any(|variable| {
            let path = variable.strip_prefix("XENBUS_PATH=");
            path.is_some_and(|path| path.trim_start_matches('/').ends_with(place))
        })
    })
}

/// Gives a domain interfaces that another domain still has. The domain must be stopped
/// until those of the other cannot send any more.
pub(super) fn attach_nics(ctx: LibxlContext, nics: Vec<Nic>, domid: u32) -> Result<(), HostError> {
    nics.into_iter().try_for_each(|mut nic| nic.add(ctx, domid))
}

// SPDX-License-Identifier: LGPL-2.1-or-later
//! A crash that another process has begun to handle: what that process tells of it, and
//! which domains are meant.
//!
//! Numbers of domains come again, and so do uuids: all domains that a guest has had have
//! the same. So the crashed domain gets a token in its own part of xenstore, which goes
//! away with the domain, and the guest cannot write there.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::config::CrashConfig;
use super::control::Control;
use super::libxl::LibxlContext;
use super::recovery::XenRecovery;
use super::store::Store;
use super::uuid::Uuid;
use crate::host::{FoundRecovery, HostError};

/// What a process tells of the crash that it handles.
#[derive(Serialize, Deserialize)]
pub(super) struct Told {
    /// The crashed domain's token.
    token: String,
    /// Free pages before anything was changed.
    pub(super) free_before: u64,
    /// The configuration, as libxl writes it.
    config: serde_json::Value,
}

/// Where a domain's token is.
fn token_path(domid: u32) -> String {
    format!("/local/domain/{domid}/vicover")
}

/// Tells of the crash of `domid`, and marks the domain as the one that is meant.
pub(super) fn describe(
    ctx: LibxlContext,
    store: &Store,
    config: &CrashConfig,
    domid: u32,
    free_before: u64,
) -> Result<String, HostError> {
    let unfit = |error: serde_json::Error| HostError::new("describe", error.to_string());
    let text = config.to_text(ctx)?;
    let token = Uuid::generate();
    let told = Told {
        token: token.to_string(),
        free_before,
        config: serde_json::from_slice(text.to_bytes()).map_err(unfit)?,
    };
    store.write(&token_path(domid), &told.token)?;
    serde_json::to_string(&told).map_err(unfit)
}

impl Told {
    /// What [`describe`] has told.
    pub(super) fn read(text: &str) -> Result<Self, HostError> {
        serde_json::from_str(text).map_err(|error| HostError::new("describe", error.to_string()))
    }

    pub(super) fn config(&self, ctx: LibxlContext) -> Result<CrashConfig, HostError> {
        CrashConfig::from_text(ctx, &self.config.to_string())
    }

    /// Whether `domid` is the domain that is told of, and is there.
    pub(super) fn is_there(
        &self,
        store: &Store,
        control: &Control,
        domid: u32,
    ) -> Result<bool, HostError> {
        if control.domain_info(domid).is_err() {
            return Ok(false);
        }
        Ok(store.read(&token_path(domid))?.as_deref() == Some(&self.token))
    }
}

/// The domain that was built in the place of `crashed`, be it not all there: it has the
/// guest's uuid, and the guest's name or none yet.
pub(super) fn find_recovery(
    store: &Store,
    control: &Control,
    config: &CrashConfig,
    crashed: u32,
) -> Result<Option<FoundRecovery>, HostError> {
    let mut others = control.domains_with(&config.get().c_info.uuid.uuid)?;
    others.retain(|domid| *domid != crashed);
    for domid in others {
        let name = store.read(&format!("/local/domain/{domid}/name"))?;
        if name.is_some_and(|name| name != config.name()) {
            continue;
        }
        let flags = control.domain_info(domid)?.flags;
        return Ok(Some(FoundRecovery {
            domain: Arc::new(XenRecovery::new(domid, config)?),
            is_running: flags & xenctrl_sys::XEN_DOMINF_paused == 0,
        }));
    }
    Ok(None)
}

//! libxl: setting the crashed domain aside, building and settling its successor.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::{libxl_error, CrashConfig, LibxlContext, INVALID_DOMID, KIB_PER_PAGE};
use super::control::Control;
use super::recovery::XenRecovery;
use super::store::Store;
use super::{destroy, detach, sys};
use crate::host::{HostError, RecoveryDomain, Requirement, Toolstack};

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
/// How long memory of a destroyed domain may take to come back.
const SETTLE_DEADLINE: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Pages of Xen's that a guest takes once its drivers connect (grant table,
/// event channels). Six were measured for one disk and one interface.
const LATER_PAGES: u64 = 16;

/// libxl, acting for one crash.
pub struct XenToolstack {
    ctx: LibxlContext,
    crashed: u32,
    config: CrashConfig,
    store: Store,
    control: Control,
    /// Free pages before anything was changed: other domains' business, of which
    /// nothing is taken.
    free_before: u64,
}

impl XenToolstack {
    /// Acts with the caller's context on the crashed domain `domid`.
    pub fn new(ctx: LibxlContext, domid: u32, config: CrashConfig) -> Result<Self, HostError> {
        let control = Control::open()?;
        Ok(Self {
            ctx,
            crashed: domid,
            config,
            store: Store::open()?,
            free_before: control.free_pages()?,
            control,
        })
    }

    fn status_path(&self) -> String {
        format!("/tool/vicover/{}", self.config.uuid_text())
    }

    /// Memory that backs the recovery domain when it starts, in KiB.
    fn thin_kib(&self) -> u64 {
        let full = self.config.max_kib();
        let (_, ramdisk) = self.config.boot_file_bytes();
        let need = BOOT_KIB + full / TABLES_SHARE + RAMDISK_FACTOR * (ramdisk >> 10);
        // Whole 2 MiB pages: populate-on-demand hands memory out in these.
        need.next_multiple_of(2048).min(full)
    }

    /// The crashed domain's configuration as recovery is built from it.
    fn thin_config(&self) -> CrashConfig {
        let mut thin = self.config.duplicate(self.ctx);
        let target = self.thin_kib();
        let config = thin.get_mut();
        config.b_info.target_memkb = target;
        config.c_info.domid = INVALID_DOMID;
        thin
    }

    /// Renames the crashed domain and moves its `/vm` node, so that its
    /// successor can have both.
    fn set_aside(&mut self) -> Result<(), HostError> {
        let suffix = CString::new(format!("-crashed-{}", self.crashed))
            .map_err(|_| HostError::new("libxl_domain_preserve", "NUL in a number"))?;
        let mut uuid = sys::libxl_uuid::default();
        // SAFETY: the uuid, our configuration and the suffix are valid for the call.
        let rc = unsafe {
            sys::libxl_uuid_generate(&mut uuid);
            sys::libxl_domain_preserve(
                self.ctx.raw(),
                self.crashed,
                &mut self.config.get_mut().c_info,
                suffix.as_ptr(),
                uuid,
            )
        };
        (rc == 0)
            .then_some(())
            .ok_or_else(|| libxl_error("libxl_domain_preserve", rc))
    }

    fn destroy(&self, domid: u32) -> Result<(), HostError> {
        destroy::destroy(self.ctx, domid)
    }

    /// Linux reads its target when it starts and waits for the balloon to reach
    /// it (Linux 6.1, `drivers/xen/balloon.c:768-797`). With the target at the
    /// maximum there is nothing to wait for.
    fn tell_full_target(&self, domid: u32) -> Result<(), HostError> {
        let memory = format!("/local/domain/{domid}/memory");
        let most = self.store.read(&format!("{memory}/static-max"))?;
        let most = most.unwrap_or_else(|| self.config.max_kib().to_string());
        self.store.write(&format!("{memory}/target"), &most)
    }
}

impl XenToolstack {
    /// Backs the rest of the recovery domain with what the destroyed domain
    /// leaves, and with nothing else. Xen frees a dead domain's last structures a
    /// little later, so this waits for them.
    ///
    /// A few pages never come back, because Xen's own tables for dom0 grew while
    /// both domains lived, and the recovery domain's drivers may still want some.
    /// They are taken from its paging pool, which libxl makes several times as
    /// large as a guest on nested paging can use (Xen 4.17,
    /// `libxl_get_required_shadow_memory`).
    fn back_wholly(&self, recovery: &dyn RecoveryDomain) -> Result<(), HostError> {
        let deadline = Instant::now() + SETTLE_DEADLINE;
        loop {
            let missing = recovery.backing()?.missing();
            let spare = self.control.free_pages()?.saturating_sub(self.free_before);
            let wanted = missing + LATER_PAGES;
            if spare < wanted && Instant::now() < deadline {
                std::thread::sleep(LOOK_AGAIN);
                continue;
            }
            let shrunk = match wanted.saturating_sub(spare) {
                0 => Ok(()),
                short => self.control.shrink_paging_pool(recovery.domid(), short),
            };
            // Whatever became of the pool: a guest must be wholly backed.
            recovery.grow(missing)?;
            return shrunk;
        }
    }
}

impl Toolstack for XenToolstack {
    fn detach(&mut self) -> Result<(), HostError> {
        self.set_aside()?;
        detach::detach(self.ctx, &self.store, self.crashed)
    }

    fn requirement(&mut self) -> Result<Requirement, HostError> {
        let mut thin = self.thin_config();
        let mut kib = 0;
        // SAFETY: libxl fills defaults into our copy and the number.
        let rc = unsafe {
            sys::libxl_domain_need_memory(self.ctx.raw(), thin.get_mut(), INVALID_DOMID, &mut kib)
        };
        if rc != 0 {
            return Err(libxl_error("libxl_domain_need_memory", rc));
        }
        Ok(Requirement {
            free_pages: (kib + DOMAIN_STRUCTURES_KIB).div_ceil(KIB_PER_PAGE),
            backed_pages: self.thin_kib() / KIB_PER_PAGE,
            full_pages: self.config.max_kib() / KIB_PER_PAGE,
        })
    }

    fn create(&mut self) -> Result<Arc<dyn RecoveryDomain>, HostError> {
        let mut thin = self.thin_config();
        let mut domid = INVALID_DOMID;
        // SAFETY: our copy of the configuration and an out number; null hows
        // make it synchronous and without console callbacks.
        let rc = unsafe {
            sys::libxl_domain_create_new(
                self.ctx.raw(),
                thin.get_mut(),
                &mut domid,
                std::ptr::null(),
                std::ptr::null(),
            )
        };
        if rc != 0 {
            return Err(libxl_error("libxl_domain_create_new", rc));
        }
        let full = self.config.max_kib() / KIB_PER_PAGE;
        self.tell_full_target(domid)
            .and_then(|()| XenRecovery::new(domid, full))
            .map(|recovery| Arc::new(recovery) as Arc<dyn RecoveryDomain>)
            .inspect_err(|_| {
                // Best effort: the reason for failing is the one to report.
                let _ = self.destroy(domid);
            })
    }

    fn start(&mut self, recovery: &dyn RecoveryDomain) -> Result<(), HostError> {
        // SAFETY: null `ao_how` makes it synchronous.
        let rc = unsafe {
            sys::libxl_domain_unpause(self.ctx.raw(), recovery.domid(), std::ptr::null())
        };
        (rc == 0)
            .then_some(())
            .ok_or_else(|| libxl_error("libxl_domain_unpause", rc))
    }

    fn discard(&mut self, recovery: &dyn RecoveryDomain) -> Result<(), HostError> {
        self.destroy(recovery.domid())
    }

    fn destroy_crashed(&mut self) -> Result<(), HostError> {
        self.destroy(self.crashed)
    }

    fn settle(&mut self, recovery: &dyn RecoveryDomain) -> Result<(), HostError> {
        self.back_wholly(recovery)?;
        let target = self.config.get().b_info.target_memkb;
        let target = i64::try_from(target)
            .map_err(|_| HostError::new("libxl_set_memory_target", "target beyond 63 bits"))?;
        // SAFETY: numbers only; absolute, and enforced on the hypervisor's limit.
        let rc =
            unsafe { sys::libxl_set_memory_target(self.ctx.raw(), recovery.domid(), target, 0, 1) };
        (rc == 0)
            .then_some(())
            .ok_or_else(|| libxl_error("libxl_set_memory_target", rc))
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

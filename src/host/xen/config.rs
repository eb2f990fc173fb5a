// SPDX-License-Identifier: LGPL-2.1-or-later
//! The crashed domain's libxl configuration: what we take from it and what it
//! must not contain.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::ptr::NonNull;

use super::control::Control;
use super::devices::{self, Disk, Nic};
use super::kind::{Asked, Kind, SUPPORTED};
use super::libxl::{libxl_answer, take_text, text_of, LibxlContext, KIB_PER_PAGE};
use super::store::Store;
use super::uuid::Uuid;
use super::{own_memory, refusal, sys};
use crate::host::HostError;

/// Our own copy of a `libxl_domain_config`.
pub struct CrashConfig {
    config: Box<sys::libxl_domain_config>,
}

// SAFETY: a deep copy that nobody else points into.
unsafe impl Send for CrashConfig {}

impl CrashConfig {
    /// Copies a configuration deeply.
    ///
    /// # Safety
    /// `config` points to an initialised `libxl_domain_config`.
    pub unsafe fn copy<T>(ctx: LibxlContext, config: NonNull<T>) -> Self {
        let mut copy = Box::<sys::libxl_domain_config>::default();
        // SAFETY: the target is ours; the caller vouches for the source.
        unsafe {
            sys::libxl_domain_config_init(&mut *copy);
            sys::libxl_domain_config_copy(ctx.raw(), &mut *copy, config.cast().as_ptr());
        }
        Self { config: copy }
    }

    /// A deep copy of the configuration.
    pub(super) fn duplicate(&self, ctx: LibxlContext) -> Self {
        // SAFETY: our own configuration is initialised.
        unsafe { Self::copy(ctx, NonNull::from(&*self.config)) }
    }

    /// Reads the configuration of a living domain back from libxl.
    pub fn retrieve(ctx: LibxlContext, domid: u32) -> Result<Self, HostError> {
        let mut config = Box::<sys::libxl_domain_config>::default();
        // SAFETY: initialised by libxl, filled by libxl, and disposed of by our Drop
        // whether that worked or not; the pointer to "why" may be null.
        let rc = unsafe {
            sys::libxl_domain_config_init(&mut *config);
            sys::libxl_retrieve_domain_configuration(
                ctx.raw(),
                domid,
                &mut *config,
                std::ptr::null_mut(),
            )
        };
        let this = Self { config };
        libxl_answer("libxl_retrieve_domain_configuration", rc).map(|()| this)
    }

    /// Reads a configuration that libxl has written.
    pub(super) fn from_text(ctx: LibxlContext, text: &str) -> Result<Self, HostError> {
        const CALL: &str = "libxl_domain_config_from_json";
        let text = CString::new(text).map_err(|_| HostError::new(CALL, "NUL in a text"))?;
        let mut config = Box::<sys::libxl_domain_config>::default();
        // SAFETY: initialised by libxl, filled by libxl from a terminated text, and
        // disposed of by our Drop whether that worked or not.
        let rc = unsafe {
            sys::libxl_domain_config_init(&mut *config);
            sys::libxl_domain_config_from_json(ctx.raw(), &mut *config, text.as_ptr())
        };
        let this = Self { config };
        libxl_answer(CALL, rc).map(|()| this)
    }

    /// Copies the configuration deeply into another.
    ///
    /// # Safety
    /// `to` points to an initialised `libxl_domain_config` that nobody else uses.
    pub unsafe fn copy_into<T>(&self, ctx: LibxlContext, to: NonNull<T>) {
        let to = to.cast().as_ptr();
        // SAFETY: the caller vouches for the target; what was in it is given up first.
        unsafe {
            sys::libxl_domain_config_dispose(to);
            sys::libxl_domain_config_init(to);
            sys::libxl_domain_config_copy(ctx.raw(), to, &*self.config);
        }
    }

    /// Removes every disk.
    pub(super) fn remove_disks(&mut self) {
        let config = &mut *self.config;
        // SAFETY: an array of libxl's with its length, freed once: it is forgotten
        // at once.
        unsafe { sys::libxl_device_disk_list_free(config.disks, config.num_disks) };
        config.disks = std::ptr::null_mut();
        config.num_disks = 0;
    }

    /// Removes every interface.
    pub(super) fn remove_nics(&mut self) {
        let config = &mut *self.config;
        // SAFETY: as for disks.
        unsafe { sys::libxl_device_nic_list_free(config.nics, config.num_nics) };
        config.nics = std::ptr::null_mut();
        config.num_nics = 0;
    }

    /// Removes every disk and interface.
    pub(super) fn remove_devices(&mut self) {
        self.remove_disks();
        self.remove_nics();
    }

    /// The guest's name; empty when the guest has none.
    pub(super) fn name(&self) -> &str {
        text_of(self.config.c_info.name).unwrap_or_default()
    }

    /// Gives the guest another name.
    pub(super) fn rename(&mut self, name: &str) -> Result<(), HostError> {
        let name = CString::new(name).map_err(|_| HostError::new("rename", "NUL in a name"))?;
        let info = &mut self.config.c_info;
        // SAFETY: both names were or will be allocated by malloc, as libxl expects
        // of a configuration that it disposes of.
        unsafe {
            libc::free(info.name.cast());
            info.name = libc::strdup(name.as_ptr());
        }
        match info.name.is_null() {
            true => Err(HostError::last_os_error("strdup")),
            false => Ok(()),
        }
    }

    /// Gives the guest a uuid that no other has.
    pub(super) fn new_uuid(&mut self) {
        self.config.c_info.uuid = Uuid::generate().0;
    }

    /// The whole configuration as libxl writes it: JSON.
    pub(super) fn to_text(&self, ctx: LibxlContext) -> Result<CString, HostError> {
        let config = std::ptr::from_ref(&*self.config).cast_mut();
        // SAFETY: our own configuration, which libxl only reads.
        let text = unsafe { sys::libxl_domain_config_to_json(ctx.raw(), config) };
        take_text(text, "libxl_domain_config_to_json")
    }

    /// What a domain is built from, as libxl writes it, without the part that is
    /// different in every recovery: how much memory backs it.
    pub(super) fn build_text(&self, ctx: LibxlContext) -> Result<String, HostError> {
        let mut copy = self.duplicate(ctx);
        let build = &mut copy.get_mut().b_info;
        build.target_memkb = 0;
        // SAFETY: our own copy.
        let text = unsafe { sys::libxl_domain_build_info_to_json(ctx.raw(), build) };
        let text = take_text(text, "libxl_domain_build_info_to_json")?;
        Ok(text.to_string_lossy().into_owned())
    }

    /// The interfaces as libxl writes them.
    pub(super) fn nics_text(&self, ctx: LibxlContext) -> Result<String, HostError> {
        let mut text = String::new();
        for nic in self.nics() {
            let nic = std::ptr::from_ref(nic).cast_mut();
            // SAFETY: an interface of our own configuration, which libxl only reads.
            let one = unsafe { sys::libxl_device_nic_to_json(ctx.raw(), nic) };
            text.push_str(&take_text(one, "libxl_device_nic_to_json")?.to_string_lossy());
        }
        Ok(text)
    }

    /// Copies of the guest's disks.
    pub(super) fn disks_of(&self, ctx: LibxlContext) -> Vec<Disk> {
        let all = self.disks().iter();
        all.map(|disk| Disk::copy(ctx, disk)).collect()
    }

    /// Copies of the guest's interfaces.
    pub(super) fn nics_of(&self, ctx: LibxlContext) -> Vec<Nic> {
        self.nics().iter().map(|nic| Nic::copy(ctx, nic)).collect()
    }

    /// Whether a second domain can have all of the guest's interfaces at the same time.
    pub(super) fn nics_can_be_twice(&self) -> bool {
        self.nics().iter().all(devices::can_be_twice)
    }

    /// Why a domain of the guest has to be built with its disks, if it has to: to any
    /// other they can be given later.
    pub(super) fn why_built_with_disks(&self) -> Option<&'static str> {
        if !self.config.b_info.bootloader.is_null() {
            return Some("the guest's boot loader reads its disk");
        }
        if self.kind().is_ok_and(Kind::has_device_model) {
            return Some("the guest's QEMU reads its disks, and is started with its domain");
        }
        // (`relied_on::qemu_starts_with_its_domain`)
        self.has_qemus_disks()
            .then_some("QEMU serves a disk of the guest's, and is only started with its domain")
    }

    /// Whether QEMU serves a disk of the guest's.
    pub(super) fn has_qemus_disks(&self) -> bool {
        self.disks().iter().any(devices::is_qemus)
    }

    pub(super) fn get(&self) -> &sys::libxl_domain_config {
        &self.config
    }

    pub(super) fn get_mut(&mut self) -> &mut sys::libxl_domain_config {
        &mut self.config
    }

    /// The largest memory the guest can have, in KiB.
    pub(super) fn max_kib(&self) -> u64 {
        self.config.b_info.max_memkb
    }

    /// What is asked for paging, in KiB; zero when nothing is.
    pub(super) fn pool_kib(&self) -> u64 {
        said(self.config.b_info.shadow_memkb)
    }

    /// What is asked for of memory.
    ///
    /// # Errors
    /// When guests of that kind cannot be dumped.
    pub(super) fn asked(&self) -> Result<Asked, HostError> {
        let build = &self.config.b_info;
        let hole_kib = match self.kind()? {
            Kind::Pvh | Kind::Pv => 0,
            // SAFETY: the part of the union that is an HVM guest's.
            Kind::Hvm => unsafe { said(build.u.hvm.mmio_hole_memkb) },
        };
        Ok(Asked {
            full_kib: self.max_kib(),
            // libxl keeps what it has chosen (`relied_on::video_memory_is_kept`).
            video_kib: said(build.video_memkb),
            hole_kib,
        })
    }

    /// The largest memory the guest can have, in pages.
    pub(super) fn full_pages(&self) -> u64 {
        self.max_kib() / KIB_PER_PAGE
    }

    /// The uuid as xenstore and xl print it.
    pub fn uuid_text(&self) -> String {
        Uuid(self.config.c_info.uuid).to_string()
    }

    /// Bytes of the ramdisk that recovery boots from.
    pub(super) fn ramdisk_bytes(&self) -> u64 {
        text_of(self.config.b_info.ramdisk)
            .and_then(|path| std::fs::metadata(path).ok())
            .map_or(0, |metadata| metadata.len())
    }

    fn nics(&self) -> &[sys::libxl_device_nic] {
        match usize::try_from(self.config.num_nics) {
            // SAFETY: libxl keeps `num_nics` interfaces in an array of our copy.
            Ok(count) if count > 0 => unsafe {
                std::slice::from_raw_parts(self.config.nics, count)
            },
            _ => &[],
        }
    }

    fn disks(&self) -> &[sys::libxl_device_disk] {
        match usize::try_from(self.config.num_disks) {
            // SAFETY: libxl keeps `num_disks` disks in an array of our copy.
            Ok(count) if count > 0 => unsafe {
                std::slice::from_raw_parts(self.config.disks, count)
            },
            _ => &[],
        }
    }

    /// Which kind the guest is of.
    ///
    /// # Errors
    /// When guests of that kind cannot be dumped.
    pub(super) fn kind(&self) -> Result<Kind, HostError> {
        // SAFETY: a number goes in; a text that is never freed, or null, comes out.
        let name = unsafe { sys::libxl_domain_type_to_string(self.config.c_info.type_) };
        let kind = text_of(name).and_then(Kind::named);
        kind.ok_or_else(|| HostError::new("libxl_domain_type", SUPPORTED))
    }

    /// Says why the memory of this guest cannot be read by us.
    pub fn unreadable(&self) -> Option<String> {
        self.kind().err().map(|error| error.what)
    }

    /// Says why this guest cannot be recovered by us, before anything is touched:
    /// the domain `domid`, or one that is not there yet.
    pub fn refusal(&self, ctx: LibxlContext, domid: Option<u32>) -> Option<String> {
        let look = || {
            let text = self.to_text(ctx)?;
            let store = domid.map(|_| Store::open()).transpose()?;
            let text = text.to_string_lossy();
            let refused = refusal::refusal(&text, store.as_ref().zip(domid));
            let Some(domid) = domid.filter(|_| refused.is_none()) else {
                return Ok(refused);
            };
            let info = Control::open()?.domain_info(domid)?;
            Ok(own_memory::check(&info, self.kind()?).err())
        };
        look().unwrap_or_else(|error: HostError| Some(error.to_string()))
    }
}

/// A size of a configuration, in KiB; zero where nothing is asked for.
fn said(kib: u64) -> u64 {
    // libxl's `~0` in C, which bindgen reads as a signed number.
    let unsaid = i64::from(sys::LIBXL_MEMKB_DEFAULT) as u64;
    match kib {
        kib if kib == unsaid => 0,
        kib => kib,
    }
}

impl Drop for CrashConfig {
    fn drop(&mut self) {
        // SAFETY: initialised in `copy`, disposed of once.
        unsafe { sys::libxl_domain_config_dispose(&mut *self.config) };
    }
}

// SPDX-License-Identifier: LGPL-2.1-or-later
//! Facts about Xen, libxl and dom0's Linux that no interface promises and that the
//! library relies on: what it is, where it was read, and what shows it.
//!
//! Each is an empty module, so that comments elsewhere can name it
//! (`relied_on::closed_is_not_idle`). A test below sees to it that every name has a
//! fact and every fact is relied on somewhere. Whoever brings the library to another
//! Xen reads this file beside that Xen's source.
//!
//! "Xen" is Xen 4.17.5 and 4.20.4, where nothing else is said; "Linux" is 6.1, of whose
//! facts not all were read again when they were brought together here. What
//! shows a fact is a story of the emulated host (`tests/host/vhost list`) or a test
//! named here. "Read" means that nothing would notice if it changed.

// Disks and interfaces.

/// blkback: a backend in state Closed may still have requests in flight.
/// `xen_blkif_disconnect` returns -EBUSY then, whoever removes the device does not
/// look at that, and xenbus writes Closed.
///
/// Linux, `drivers/block/xen-blkback/xenbus.c:290-331` and `:545`. Read.
mod closed_is_not_idle {}

/// A block device of device-mapper's that is suspended keeps requests back and does not
/// count them as in flight. When it is resumed, they are left to a work queue (`kdmflush`)
/// and may be sent after it has stopped to say `dm/suspended`; a request that comes
/// meanwhile does not wait for them, so that its end proves nothing.
///
/// Linux, `drivers/md/dm.c`, `dm_submit_bio`, `queue_io`, `dm_queue_flush` and
/// `dm_wq_work`. Story `no-recovery`.
mod suspended_keeps_requests {}

/// A block device of dm-crypt's counts a write as in flight when it is encrypted, and has
/// it in a work queue before that (`accounts_remapped_io`; of the kernel's own targets only
/// dm-delay, which is for tests, does the same). One above it, such as a logical volume,
/// counts it from the start. Its uuid begins with "CRYPT-", as cryptsetup names it.
///
/// Linux, `drivers/md/dm-crypt.c`, `crypt_map`, and `drivers/md/dm.c`,
/// `dm_submit_bio_remap`. Read; that of dm-delay was seen.
mod crypt_counts_late {}

/// A device's directory in sysfs goes after its driver has let go of the device, its
/// link on the bus before.
///
/// Linux, `drivers/base/core.c`, `device_del`. Read.
mod link_goes_first {}

/// blkback counts the requests of each virtual disk (`statistics/`) and names the
/// block device below it (`physical_device`) in
/// `/sys/bus/xen-backend/devices/vbd-DOMID-DEVID`. How long requests take, the device
/// below knows: `/sys/dev/block/MAJOR:MINOR/stat`.
///
/// Linux, `drivers/block/xen-blkback/xenbus.c` and `Documentation/block/stat.rst`.
/// Story `pacing-reads`.
mod blkback_counts {}

/// For a raw disk on a block device or in a file, libxl tries blkback first, unless
/// the configuration names another backend. Disks of other formats are QEMU's.
///
/// Xen, `tools/libs/light/libxl_device.c`, `disk_try_backend` and its callers.
/// Stories `two-of-each` and `qemu-disks`.
mod raw_disks_are_blkbacks {}

/// Of a domain that has shut down, libxl takes a disk of QEMU's without asking QEMU: it
/// waits two seconds, writes that the backend is closed, and removes it from xenstore.
///
/// Xen, `tools/libs/light/libxl_device.c`, `libxl__initiate_device_generic_remove` and
/// `device_qemu_timeout`. Story `qemu-disks`.
mod qemu_is_not_asked {}

/// For disks that QEMU serves, libxl starts it when it builds the domain, and refuses to
/// give such a disk to a domain beside which there is none.
///
/// Xen, `tools/libs/light/libxl_dm.c`, `libxl__dm_check_start`. Story `qemu-disks`.
mod qemu_starts_with_its_domain {}

/// Every QEMU that libxl starts has a monitor for programs that watch, beside libxl's own:
/// `qmp-libxenstat-DOMID` in `/run/xen`. It talks to one at a time.
///
/// Xen, `tools/libs/light/libxl_dm.c`, `libxl__build_device_model_args_new`. Story
/// `qemu-disks`.
mod qemu_has_a_second_monitor {}

/// QEMU opens the images of a guest's paravirtual disks without locks, so that a second
/// QEMU can have one at the same time.
///
/// QEMU, `hw/block/xen-block.c`, `xen_block_drive_create`. Read.
mod qemu_locks_nothing {}

/// libxl's hotplug script for disks does nothing when it finds the block device's
/// numbers in xenstore (`physical-device`). Otherwise it finds them out, makes sure
/// that nobody else has the device, and writes them, all under the lock `block`.
///
/// Xen, `tools/hotplug/Linux/block`. Stories `vicover` and `standby`.
mod block_script_bails_out {}

/// libxl names the backend that a hotplug script is run for in the script's environment,
/// as `XENBUS_PATH=backend/KIND/DOMID/DEVID`. The script goes on when libxl's process is
/// killed.
///
/// Xen, `libxl_linux.c`, `get_hotplug_env`. Story `killed`.
mod scripts_know_their_backend {}

/// A lock of the hotplug scripts is a file in `LOCK_BASEDIR` that its holder has
/// locked with flock(2) and that is still the one of its name; its holder removes it
/// to let go. The script's own comment proves that.
///
/// Xen, `tools/hotplug/Linux/locking.sh`.
/// `one_holds_it_at_a_time_though_its_file_goes_each_time`.
mod hotplug_locks {}

/// A guest finds an interface when it looks, and can use it, before the interface's
/// hotplug script has ended.
///
/// Linux, `drivers/net/xen-netfront.c`, `netback_changed`. Story `interface-scripts`.
mod interface_needs_no_script {}

// Memory.

/// What libxl chooses for a domain where nothing was asked for, such as the size of the
/// paging pool, is not in the configuration that it keeps and tells of the domain.
/// `libxl_domain_need_memory` puts it into the one that it is given.
///
/// Xen, `tools/libs/light/libxl_create.c`, `libxl__domain_config_setdefault`, and
/// `libxl_internal.c`, `libxl__update_domain_configuration`. Story `killed`.
mod choices_are_not_kept {}

/// RAM of a PVH guest ends below 4 GiB at 0xfc000000 (`ACPI_INFO_PHYSICAL_ADDRESS`)
/// and goes on at 4 GiB. The local APIC and the special pages are between.
///
/// Xen, `tools/libs/light/libxl_dom.c`, `libxl__build_hvm`. Story `two-of-each`.
mod pvh_ram {}

/// RAM of an HVM guest, which is its memory without the graphics adapter's, ends below
/// 4 GiB where the hole for devices begins: at 0xf0000000
/// (`HVM_BELOW_4G_MMIO_START`), or lower where a larger one is asked for. hvmloader moves
/// none of it: libxl allows that only with "qemu-xen-traditional". There are no pages at
/// the graphics adapter's frames below 1 MiB.
///
/// Xen, `tools/libs/light/libxl_dom.c`, `libxl__build_hvm`, `libxl_dm.c`,
/// "allow-memory-relocate", and `tools/libs/guest/xg_dom_x86.c`, `meminit_hvm`. Story
/// `hvm`.
mod hvm_ram {}

/// How much memory the graphics adapter has is in the configuration that libxl keeps of
/// a domain, also where libxl has chosen it.
///
/// Xen, `tools/libs/light/libxl_internal.c`, `libxl__update_domain_configuration`. Story
/// `hvm`.
mod video_memory_is_kept {}

/// Populate-on-demand: mapping an address backs it, as touching it does, and Xen
/// crashes the domain when its cache is empty then.
///
/// Xen, `xen/arch/x86/mm/p2m-pod.c`, `p2m_pod_demand_populate`. Story `memory-guard`.
mod pod_ends_guest {}

/// Of a domain whose populate-on-demand cache does not cover all its entries, pages
/// that are given back go into the cache and not to the host; before XSA-507 was fixed
/// (Xen 4.17.7, 4.20.4) special pages as well.
///
/// Xen, `xen/arch/x86/mm/p2m-pod.c`, `p2m_pod_decrease_reservation`. Read.
mod pod_keeps_what_it_lacks {}

/// Linux reads its memory target when it starts and waits for the balloon to reach it.
///
/// Of an HVM guest libxl's target is its memory without the graphics adapter's, and Linux
/// gives back as much of the rest once more.
///
/// Linux, `drivers/xen/balloon.c:768-797`, and `drivers/xen/xen-balloon.c`,
/// `watch_target`. Stories `vicover` and `hvm`.
mod balloon_waits {}

/// libxl allows a domain 1024 KiB beyond its memory (`LIBXL_MAXMEM_CONSTANT`).
///
/// Xen, `tools/libs/light/libxl_internal.h`. Story `bookkeeping`.
mod limit_slack {}

/// libxl makes the paging pool of a guest several times as large as one on nested
/// paging can use: 1 MiB for each processor and 4 KiB for each MiB of memory.
///
/// Xen, `tools/libs/light/libxl_create.c`, `libxl__get_required_paging_memory`.
/// Story `vicover`.
mod paging_pool_is_large {}

/// A PV guest of 64 bits has the list of its machine frames in one piece, at an address and
/// behind page tables that it says in `arch_shared_info`: `p2m_vaddr` and `p2m_cr3`.
///
/// Xen, `xen/include/public/arch-x86/xen.h`; Linux since 4.0, `arch/x86/xen/p2m.c`,
/// `xen_setup_mfn_list_list`. Story `pv-block`.
mod pv_list_is_linear {}

/// Sixteen entries of each root of a PV guest's page tables are Xen's, from 256 on
/// (`ROOT_PAGETABLE_FIRST_XEN_SLOT`), and the guest's kernel knows nothing of them.
///
/// Xen, `xen/arch/x86/include/asm/config.h`. Story `pv-block`.
mod pv_root_has_xens_entries {}

/// Linux of a PV guest makes page descriptors for ten times as much memory as it starts
/// with, beside that (`EXTRA_MEM_RATIO`).
///
/// Linux, `arch/x86/xen/setup.c`. Read.
mod pv_grows_tenfold {}

/// Of a domain that is marked as dying Xen answers questions about shadow page tables with
/// success, and says nothing. Of others it answers them, or with an error where it is built
/// without such tables, as Debian's is.
///
/// Xen, `xen/arch/x86/mm/paging.c`, `paging_domctl`. Story `pv-block`, which claims.
mod paging_ignores_the_dying {}

/// Extents of a higher order gain nothing where memory is given back: Xen takes them
/// apart page by page, cannot be interrupted meanwhile, and of one that it refuses
/// half way it does not say which half.
///
/// Xen, `xen/common/memory.c`, `decrease_reservation`. Read.
mod extents_are_taken_apart {}

/// `xc_vcpu_getcontext` has Xen allocate a `struct vcpu_guest_context`, 5168 bytes and so
/// two pages, for the time of the call; one of the states that Xen saves of a processor
/// takes less than one. Of a processor that has stopped there is nothing else to ask.
///
/// Xen, `xen/common/domctl.c`, `XEN_DOMCTL_getvcpucontext`, and
/// `xen/arch/x86/hvm/save.c`, `hvm_save_one`. Story `vicover`, which looks at how much
/// memory is free all the time, and `hvm-qcow2` with two processors, in which the two
/// pages were seen.
mod getcontext_takes_pages {}

/// A processor that halts with its interrupts off is down for Xen, which then saves no
/// state of it. So Linux stops the other processors when it panics.
///
/// Xen, `xen/arch/x86/hvm/hvm.c`, `hvm_hlt`, `hvm_vcpu_down` and `hvm_save_cpu_ctxt`.
/// Story `two-of-each`.
mod stopped_has_no_state {}

/// Of frames that cannot be mapped, EINVAL says that there is no such frame, ENOENT
/// that it is paged out.
///
/// Linux, `drivers/xen/privcmd.c`, `mmap_batch_fn`. Story `destroyed-meanwhile`.
mod mapping_errors {}

/// Xen has 16 TiB of memory at most, for all guests together: frame numbers have 32
/// bits without `CONFIG_BIGMEM`.
///
/// Xen, `xen/arch/x86/include/asm/mm.h`, `__pdx_t`. Read.
mod most_frames {}

/// A guest on hardware virtualisation has 128 processors at most.
///
/// Xen, `xen/include/public/hvm/hvm_info_table.h`, `HVM_MAX_VCPUS`. Read.
mod most_vcpus {}

// Domains that end.

/// A domain that is destroyed is marked as dying, then its claim is given up, then its
/// memory is freed.
///
/// Xen, `xen/common/domain.c`, `domain_kill`. Story `destroyed-meanwhile`.
mod claim_goes_second {}

/// A claim that is made on a dying domain after its claim was given up stays until the
/// host reboots, and grows by every page that the domain frees. Xen 4.19.5, 4.20.3,
/// 4.21.1 and 4.22 refuse it (2379ca04fe), 4.17 and 4.18 never did.
///
/// Xen, `xen/common/page_alloc.c`, `domain_adjust_tot_pages`. Story
/// `destroyed-meanwhile`.
mod late_claims_stay {}

/// A claim is for all that the domain would have then, and a domain has one at most:
/// an old one is given up first.
///
/// Xen, `xen/common/page_alloc.c`, `domain_set_outstanding_pages`. Story `vicover`.
mod claim_is_for_all {}

/// `XEN_DOMINF_dying` shows only when all memory of the domain is freed.
///
/// Xen, `xen/common/domctl.c`, `getdomaininfo`. Read.
mod dying_shows_late {}

/// Xen saves no state of a domain from the moment on when it is marked as dying.
///
/// Xen, `xen/arch/x86/hvm/save.c`, `hvm_save_one`. Story `destroyed-meanwhile`.
mod dying_is_not_saved {}

/// Pauses by the toolstack are counted: a domain runs again when all who paused it have
/// let go.
///
/// Xen, `xen/common/domain.c`, `domain_pause_by_systemcontroller`. Story `live-dump`.
mod pauses_are_counted {}

// libxl.

/// libxl writes a configuration as JSON and leaves out what is as it is by default.
/// Structures stand there always, empty ones as well.
///
/// Xen, `tools/libs/light/gentypes.py`, `get_default_expr`.
/// `whatever_this_libxl_writes_is_judged`.
mod json_tells_what_was_asked_for {}

/// A child that libxl forks takes the lock of libxentoolcore's list of handles, of
/// which it has a copy, to let go of libxl's connection to xenstore. One that destroys
/// a domain takes that of libxencall's buffers, too.
///
/// Xen, `tools/libs/store/xs.c`, `xs_daemon_destroy_postfork` and `close_fds_free`.
/// Read.
mod children_take_locks {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    /// Every name that stands between `before` and something else than a name.
    fn names(text: &str, before: &str) -> BTreeSet<String> {
        let name = |after: &str| {
            let is_in = |c: char| c.is_ascii_alphanumeric() || c == '_';
            after.chars().take_while(|c| is_in(*c)).collect()
        };
        text.split(before).skip(1).map(name).collect()
    }

    fn relied_on_below(directory: &Path) -> BTreeSet<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        let found = entries.flat_map(|entry| {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => relied_on_below(&path),
                false if path.ends_with("xen/relied_on.rs") => BTreeSet::new(),
                false => names(&std::fs::read_to_string(path).unwrap(), "relied_on::"),
            }
        });
        found.collect()
    }

    #[test]
    fn every_name_has_a_fact_and_every_fact_is_relied_on() {
        let text = include_str!("relied_on.rs");
        let facts = text.split("#[cfg(test)]").next().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        assert_eq!(names(facts, "\nmod "), relied_on_below(&source));
    }
}

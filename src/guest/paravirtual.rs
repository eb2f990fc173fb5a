// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a kernel says of itself that runs without hardware virtualisation.

use crate::addr::{GuestPhys, PAGE_SIZE};

use super::kallsyms::{lookup, KallsymsError};
use super::kernel::Kernel;
use super::memory::GuestMemory;

/// Bytes of the variable.
pub const MARK_BYTES: usize = 8;
/// The variable's name: the address of what Xen told the kernel at its start. Linux sets
/// it in a PV guest (`arch/x86/xen/enlighten_pv.c`).
const MARK: &str = "xen_start_info";

/// Where the variable is from which crash concludes that page tables name machine frames.
///
/// # Errors
/// When the kernel does not tell.
pub fn mark(mem: &dyn GuestMemory, kernel: &Kernel) -> Result<GuestPhys, KallsymsError> {
    let missing = KallsymsError::Value(MARK);
    let [found] = lookup(mem, kernel, [MARK])?;
    let at = kernel
        .tables
        .translate(mem, found.ok_or(missing.clone())?)?
        .phys;
    let is_whole = at.page_offset() + MARK_BYTES <= PAGE_SIZE;
    is_whole.then_some(at).ok_or(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::guests::symbols::{Kept, BASE_ADDRESS};
    use crate::guest::guests::synthetic::Guest;
    use crate::guest::limits::Limits;
    use crate::guest::locate::locate;

    fn mark_of(symbols: &[(&str, u64)]) -> Result<GuestPhys, KallsymsError> {
        let mut guest = Guest::new(1 << 14);
        guest.add_symbols(Kept::Base, symbols);
        guest.write_description();
        let processors = guest.processors();
        let located = locate(&guest, &processors, &Limits::default()).expect("a kernel");
        let text = located.kernel.image_symbol("_stext").expect("_stext");
        mark(&guest, &located.kernel).map(|at| GuestPhys(at.0 - text.0))
    }

    #[test]
    fn the_mark_is_where_the_kernels_symbols_say() {
        let stext = ("_stext", BASE_ADDRESS);
        let found = mark_of(&[stext, (MARK, BASE_ADDRESS + 0x5008)]);
        assert_eq!(found, Ok(GuestPhys(0x5008)));
        let found = mark_of(&[stext, (MARK, BASE_ADDRESS + 0x5ff8)]);
        assert_eq!(found, Ok(GuestPhys(0x5ff8)));
        let missing = Err(KallsymsError::Value(MARK));
        assert_eq!(mark_of(&[stext]), missing);
        // In two pages, as no variable is.
        assert_eq!(mark_of(&[stext, (MARK, BASE_ADDRESS + 0x5ff9)]), missing);
        // Where nothing is mapped.
        let found = mark_of(&[stext, (MARK, BASE_ADDRESS + (1 << 30))]);
        assert!(
            matches!(found, Err(KallsymsError::Unreadable(_))),
            "{found:?}"
        );
    }
}

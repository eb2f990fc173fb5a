// SPDX-License-Identifier: LGPL-2.1-or-later
//! Whether a domain's memory is its own and there, as the hypervisor counts it. No
//! configuration tells: other programs share pages and page them out.

use xenctrl_sys as xc;

use super::kind::Kind;

/// Refuses a domain with pages that it shares, pages that are paged out, or page tables that
/// Xen keeps copies of: what is given back of them is not what the host gets.
pub(super) fn check(info: &xc::xc_domaininfo_t, kind: Kind) -> Result<(), String> {
    let counts = [(info.shr_pages, "shared"), (info.paged_pages, "paged out")];
    if let Some((pages, what)) = counts.iter().find(|(pages, _)| *pages > 0) {
        return Err(format!("{pages} of the guest's pages are {what}"));
    }
    match info.flags & xc::XEN_DOMINF_hap {
        0 if kind.is_translated() => {
            Err("the guest runs on shadow page tables (hap=0), not on nested paging".into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_not_the_guests_alone_is_refused() {
        let ordinary = xc::xc_domaininfo_t {
            flags: xc::XEN_DOMINF_hap | xc::XEN_DOMINF_shutdown,
            tot_pages: 1 << 17,
            ..xc::xc_domaininfo_t::default()
        };
        assert_eq!(check(&ordinary, Kind::Pvh), Ok(()));
        let refused = |change: fn(&mut xc::xc_domaininfo_t)| {
            let mut info = ordinary;
            change(&mut info);
            check(&info, Kind::Pvh).unwrap_err()
        };
        let said = refused(|info| info.shr_pages = 3);
        assert_eq!(said, "3 of the guest's pages are shared");
        let said = refused(|info| info.paged_pages = 1);
        assert_eq!(said, "1 of the guest's pages are paged out");
        let said = refused(|info| info.flags = xc::XEN_DOMINF_shutdown);
        assert!(said.contains("shadow page tables"), "{said}");
        let pv = xc::xc_domaininfo_t {
            flags: 0,
            ..ordinary
        };
        assert_eq!(check(&pv, Kind::Pv), Ok(()));
    }
}

// SPDX-License-Identifier: LGPL-2.1-or-later
//! Claims on a domain that somebody may destroy meanwhile.
//!
//! A claim keeps free pages for a domain. Xen gives it up when the domain is
//! destroyed, once, at the start: it marks the domain as dying, then gives up its
//! claim, then frees its memory (`relied_on::claim_goes_second`). A claim that is made
//! after that second step is never given up where Xen does not refuse it: until the
//! host reboots nobody has its pages (`relied_on::late_claims_stay`). An operator's
//! `xl destroy` at the wrong moment is enough.
//!
//! So after each claim we look whether the domain is dying, and give the claim up if
//! it is. A claim before the second step is Xen's to give up; one after it is followed
//! by a look that sees the mark, since the mark came first.
//!
//! * `XEN_DOMINF_dying` is not that mark (`relied_on::dying_shows_late`). What sees the
//!   mark is a call that Xen refuses from then on; which one, the domain's kind knows.
//! * A domain that is gone has nothing to call. One with a page that is mapped is not
//!   gone, however dead it is, so a page of its is mapped from before the claim until
//!   after the look.
//!
//! What is left is a process that is killed between claim and look while the domain begins to
//! die between them; and of Xen that refuses, the instant between its own look and its
//! claim, which it does not let us undo either.

use crate::host::HostError;

/// The calls to the hypervisor of which a claim on one domain consists.
pub(super) trait Claimed {
    /// Keeps the domain from being gone.
    type Pin;

    /// Pages that the domain has.
    fn total_pages(&self) -> Result<u64, HostError>;

    /// A pin on the domain, as long as it is not dropped.
    fn pin(&self) -> Result<Self::Pin, HostError>;

    /// Claims for the domain to have `pages` in all; zero gives a claim up.
    fn set_claim(&self, pages: u64) -> Result<(), HostError>;

    /// Whether the domain is being destroyed, as far as one can tell.
    fn is_dying(&self) -> bool;
}

/// Claims `pages` for a domain beyond what it has, in place of any claim before;
/// after a failure nothing is claimed. Xen wants a claim to be for all that the domain
/// would have then, and an old one given up first (`relied_on::claim_is_for_all`).
pub(super) fn claim_above_total(domain: &impl Claimed, pages: u64) -> Result<(), HostError> {
    let given_up = domain.set_claim(0);
    // The clearer answer when there is no domain.
    let total = domain.total_pages()?;
    given_up?;
    if pages == 0 {
        return Ok(());
    }
    let _pin = domain.pin()?;
    domain.set_claim(total.saturating_add(pages))?;
    if domain.is_dying() {
        // Where Xen refuses this, there is no such claim.
        let _ = domain.set_claim(0);
        return Err(HostError::new(
            "xc_domain_claim_pages",
            "the domain is being destroyed",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    /// How far Xen is in destroying the domain.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
    enum Life {
        Alive,
        Marked,
        Dying,
        Dead,
        Gone,
    }

    #[derive(Debug)]
    struct Xen {
        /// Claims on dying domains are refused.
        refuses: bool,
        /// Life goes on before the calls of these numbers.
        fate: [(usize, Life); 4],
        calls: usize,
        life: Life,
        pins: usize,
        claimed: u64,
        lost: u64,
    }

    impl Xen {
        fn advance(&mut self, to: Life) {
            // Never back, and the claim is given up whatever is skipped.
            if to > Life::Marked && self.life <= Life::Marked {
                self.claimed = 0;
            }
            self.life = self.life.max(to);
            self.bury();
        }

        fn bury(&mut self) {
            if self.life == Life::Dead && self.pins == 0 {
                self.life = Life::Gone;
                self.lost += std::mem::take(&mut self.claimed);
            }
        }

        fn call(&mut self) -> Result<(), HostError> {
            let reached = self.fate.iter().filter(|(at, _)| *at <= self.calls);
            if let Some(life) = reached.map(|(_, life)| *life).max() {
                self.advance(life);
            }
            self.calls += 1;
            match self.life {
                Life::Gone => Err(HostError::new("call", "there is no domain")),
                _ => Ok(()),
            }
        }
    }

    struct Domain(Rc<RefCell<Xen>>);

    struct Pin(Rc<RefCell<Xen>>);

    impl Drop for Pin {
        fn drop(&mut self) {
            let mut xen = self.0.borrow_mut();
            xen.pins -= 1;
            xen.bury();
        }
    }

    impl Claimed for Domain {
        type Pin = Pin;

        fn total_pages(&self) -> Result<u64, HostError> {
            self.0.borrow_mut().call().map(|()| 1000)
        }

        fn pin(&self) -> Result<Pin, HostError> {
            let mut xen = self.0.borrow_mut();
            xen.call()?;
            if xen.life == Life::Dead {
                return Err(HostError::new("pin", "no page is left"));
            }
            xen.pins += 1;
            Ok(Pin(self.0.clone()))
        }

        fn set_claim(&self, pages: u64) -> Result<(), HostError> {
            let mut xen = self.0.borrow_mut();
            xen.call()?;
            if xen.refuses && xen.life != Life::Alive {
                return Err(HostError::new("claim", "refused"));
            }
            xen.claimed = pages.saturating_sub(1000);
            Ok(())
        }

        fn is_dying(&self) -> bool {
            let mut xen = self.0.borrow_mut();
            xen.call().is_err() || xen.life != Life::Alive
        }
    }

    /// What a claim came to on a domain of that fate, and what is lost when the domain
    /// is gone.
    fn try_claim(refuses: bool, fate: [usize; 3]) -> (Result<(), HostError>, Xen) {
        let [marked, dying, dead] = fate;
        let xen = Rc::new(RefCell::new(Xen {
            refuses,
            fate: [
                (0, Life::Alive),
                (marked, Life::Marked),
                (dying, Life::Dying),
                (dead, Life::Dead),
            ],
            calls: 0,
            life: Life::Alive,
            pins: 0,
            claimed: 0,
            lost: 0,
        }));
        let answer = claim_above_total(&Domain(xen.clone()), 8);
        let xen = Rc::into_inner(xen).expect("all pins are dropped");
        (answer, xen.into_inner())
    }

    const CALLS: usize = 7;

    #[test]
    fn a_claim_on_a_domain_that_lives_is_made() {
        for refuses in [false, true] {
            let (answer, xen) = try_claim(refuses, [CALLS; 3]);
            assert!(answer.is_ok(), "{answer:?}");
            assert_eq!((xen.claimed, xen.pins), (8, 0), "{xen:?}");
        }
    }

    #[test]
    fn no_claim_is_lost_whenever_the_domain_is_destroyed() {
        for refuses in [false, true] {
            for marked in 0..=CALLS {
                for dying in marked..=CALLS {
                    for dead in dying..=CALLS {
                        let fate = [marked, dying, dead];
                        let (_, mut xen) = try_claim(refuses, fate);
                        xen.advance(Life::Dying);
                        xen.advance(Life::Dead);
                        assert_eq!(xen.life, Life::Gone);
                        assert_eq!(xen.lost, 0, "refuses {refuses}, fate {fate:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_claim_that_came_too_late_is_told() {
        // The fifth call is the look.
        let (answer, xen) = try_claim(false, [4, CALLS, CALLS]);
        let said = answer.expect_err("it is dying").to_string();
        assert!(said.contains("being destroyed"), "{said}");
        assert_eq!(xen.claimed, 0);
    }

    #[test]
    fn a_failure_leaves_no_claim() {
        struct NoPage(Domain);
        impl Claimed for NoPage {
            type Pin = Pin;
            fn total_pages(&self) -> Result<u64, HostError> {
                self.0.total_pages()
            }
            fn pin(&self) -> Result<Pin, HostError> {
                Err(HostError::new("pin", "no room to map it"))
            }
            fn set_claim(&self, pages: u64) -> Result<(), HostError> {
                self.0.set_claim(pages)
            }
            fn is_dying(&self) -> bool {
                self.0.is_dying()
            }
        }
        let (_, mut xen) = try_claim(false, [CALLS; 3]);
        xen.fate = [(usize::MAX, Life::Alive); 4];
        let xen = Rc::new(RefCell::new(xen));
        assert!(claim_above_total(&NoPage(Domain(xen.clone())), 16).is_err());
        assert_eq!(xen.borrow().claimed, 0);
    }
}

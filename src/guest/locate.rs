// SPDX-License-Identifier: LGPL-2.1-or-later
//! Finding the kernel: from what the processors say, and only then by searching.
//!
//! Memory holds more than one description of a kernel: that of one that ran before, a
//! file, a trap. So one counts when the image that a processor runs points to it
//! (`pointers`), when memory agrees with it ([`Kernel::check`]), and
//! when that processor's page tables do. Two that fulfil all that and say different
//! things are as bad as none.
//!
//! Where processors lead nowhere, memory is searched (`search`), for
//! as long as the caller lets it. Without any register, nobody can tell a kernel that
//! runs from one that ran: then the first that memory agrees with counts.

use std::collections::BTreeSet;

use crate::addr::{Gfn, GuestPhys};

use super::arch::x86_64::Processor;
use super::candidate::Candidate;
use super::kernel::{Kernel, Refusal};
use super::limits::Limits;
use super::memory::GuestMemory;
use super::pointers::{Pointers, Space};
use super::search::search;
use super::vmcoreinfo::VmcoreInfo;

/// Candidates that are looked at, at most: a guest can fill its memory with
/// them.
const MAX_CANDIDATES: usize = 1024;

/// Refusals that an error tells about, at most.
const MAX_REFUSALS: usize = 8;

/// The kernel, and how it was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Located {
    /// The kernel.
    pub kernel: Kernel,
    /// The copies of its description that were confirmed.
    pub copies: Vec<Candidate>,
    /// What led to them.
    pub by: Way,
    /// Pages looked at until then, each counted once.
    pub pages_probed: u64,
}

/// What led to a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// A processor's page tables.
    Processor,
    /// A search.
    Search,
}

/// A description that is not believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Where the description is.
    pub gfn: Gfn,
    /// What the description says, when it is text at all.
    pub info: Option<VmcoreInfo>,
    /// Why the description is not believed.
    pub why: Refusal,
}

/// Why no kernel is known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LocateError {
    /// Nothing looks like a description.
    #[error("no VMCOREINFO in {pages_probed} pages{}", ended(*whole))]
    Nothing {
        /// Pages looked at, each counted once.
        pages_probed: u64,
        /// Whether that is all there is.
        whole: bool,
    },
    /// What looks like one does not hold.
    #[error("no VMCOREINFO is confirmed{}", named(refused))]
    Refused {
        /// What they are, the likeliest first.
        refused: Vec<Refused>,
        /// Pages looked at, each counted once.
        pages_probed: u64,
    },
    /// Two of them hold and say different things.
    #[error("VMCOREINFO at {} and at {} contradict each other", .0.gfn, .1.gfn)]
    Contradiction(Claim, Claim),
}

/// A description that holds, beside another that does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// Where the description is.
    pub gfn: Gfn,
    /// What the description says.
    pub info: VmcoreInfo,
}

impl LocateError {
    /// The description that is likeliest to be the kernel's, although it is not
    /// confirmed.
    pub fn unconfirmed(&self) -> Option<&VmcoreInfo> {
        match self {
            Self::Nothing { .. } => None,
            Self::Refused { refused, .. } => refused.iter().find_map(|one| one.info.as_ref()),
            Self::Contradiction(one, _) => Some(&one.info),
        }
    }
}

fn ended(whole: bool) -> &'static str {
    match whole {
        true => "",
        false => ", then the search was ended",
    }
}

fn named(refused: &[Refused]) -> String {
    let release = |info: &VmcoreInfo| format!(" (Linux {})", info.release());
    let named = refused.iter().map(|one| {
        let release = one.info.as_ref().map(release).unwrap_or_default();
        format!("; at {}{release}: {}", one.gfn, one.why)
    });
    named.collect()
}

/// Finds the kernel.
pub fn locate(
    mem: &dyn GuestMemory,
    processors: &[Processor],
    limits: &Limits<'_>,
) -> Result<Located, LocateError> {
    let mut pointers = Pointers::new(mem, limits.give_up);
    let mut judge = Judge::new(mem, processors);
    for processor in processors {
        for space in Space::of(mem, processor) {
            if judge.is_told_by(processor) || judge.has_32_bits() || (limits.give_up)() {
                break;
            }
            for candidate in pointers.follow(&space) {
                judge.candidate(candidate);
            }
        }
    }
    if judge.has_seen_any() {
        return judge.finish(Way::Processor, pointers.looked().count(), true);
    }
    let stop = || (limits.give_up)() || (limits.end_search)();
    let searched = search(mem, &stop, &mut |candidate| {
        judge.with_its_pointers(candidate, &mut pointers)
    });
    let mut looked = searched.looked;
    looked.add_all(pointers.looked());
    judge.finish(Way::Search, looked.count(), !searched.ended)
}

/// Candidates, and what became of them.
struct Judge<'a> {
    mem: &'a dyn GuestMemory,
    processors: &'a [Processor],
    seen: BTreeSet<Candidate>,
    /// Kernels that hold, with the copies of their description.
    found: Vec<(Kernel, Vec<Candidate>)>,
    refused: Vec<Refused>,
}

impl<'a> Judge<'a> {
    fn new(mem: &'a dyn GuestMemory, processors: &'a [Processor]) -> Self {
        Self {
            mem,
            processors,
            seen: BTreeSet::new(),
            found: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// Whether a processor runs a kernel that was found.
    fn is_told_by(&self, processor: &Processor) -> bool {
        let mut kernels = self.found.iter();
        kernels.any(|(kernel, _)| kernel.is_run_by(self.mem, processor))
    }

    fn has_seen_any(&self) -> bool {
        !self.seen.is_empty()
    }

    /// Whether a kernel of 32 bits was met: it is no other for other processors.
    fn has_32_bits(&self) -> bool {
        self.refused.iter().any(|one| one.why == Refusal::Bits32)
    }

    /// Judges a candidate that a search came across. When it holds, the kernel's own
    /// pointers tell which descriptions are its own. True when they are known.
    fn with_its_pointers(&mut self, candidate: Candidate, pointers: &mut Pointers<'_>) -> bool {
        let Some(kernel) = self.check(candidate) else {
            return false;
        };
        let own = pointers.follow(&Space::long(kernel.tables));
        if own.is_empty() || own.contains(&candidate) {
            self.found.push((kernel, vec![candidate]));
        }
        own.into_iter().for_each(|own| self.candidate(own));
        !self.found.is_empty()
    }

    /// Judges a candidate that a kernel's image points to.
    fn candidate(&mut self, candidate: Candidate) {
        let Some(kernel) = self.check(candidate) else {
            return;
        };
        let mut found = self.found.iter_mut();
        let same = found.find(|(other, _)| other.info.agrees_with(&kernel.info));
        match same {
            None => self.found.push((kernel, vec![candidate])),
            Some((first, copies)) => {
                // The one written last says more.
                if kernel.info.text().len() > first.info.text().len() {
                    *first = kernel;
                }
                copies.push(candidate);
            }
        }
    }

    fn check(&mut self, candidate: Candidate) -> Option<Kernel> {
        if self.seen.len() >= MAX_CANDIDATES || !self.seen.insert(candidate) {
            return None;
        }
        let info = candidate.read(self.mem)?;
        let said = info.as_ref().ok().cloned();
        let checked = info.and_then(|info| Kernel::check(self.mem, info));
        let checked = checked.and_then(|kernel| match self.processors {
            [] => Ok(kernel),
            all if all.iter().any(|one| kernel.is_run_by(self.mem, one)) => Ok(kernel),
            _ => Err(Refusal::NotRun),
        });
        match checked {
            Ok(kernel) => Some(kernel),
            Err(why) => {
                if self.refused.len() < MAX_REFUSALS {
                    self.refused.push(Refused {
                        gfn: candidate.gfn,
                        info: said,
                        why,
                    });
                }
                None
            }
        }
    }

    fn finish(mut self, by: Way, pages_probed: u64, whole: bool) -> Result<Located, LocateError> {
        // A kernel that has noted its crash has handed over to the one that it kept
        // for that; processors that it stopped stay on its tables.
        let alive = self.found.iter().map(|(kernel, _)| kernel);
        let alive = alive.filter(|kernel| kernel.info.crash_time_s().is_none());
        let alive: Vec<GuestPhys> = alive.map(|kernel| kernel.tables.root()).collect();
        let is_alive = |kernel: &Kernel| alive.contains(&kernel.tables.root());
        self.found
            .retain(|(kernel, _)| alive.is_empty() || is_alive(kernel));
        let mut found = self.found.into_iter();
        match (found.next(), found.next()) {
            (Some((kernel, copies)), None) => Ok(Located {
                kernel,
                copies,
                by,
                pages_probed,
            }),
            (Some(one), Some(other)) => {
                let claim = |(kernel, copies): (Kernel, Vec<Candidate>)| Claim {
                    gfn: copies[0].gfn,
                    info: kernel.info,
                };
                Err(LocateError::Contradiction(claim(one), claim(other)))
            }
            (None, _) if self.refused.is_empty() => Err(LocateError::Nothing {
                pages_probed,
                whole,
            }),
            (None, _) => Err(LocateError::Refused {
                refused: self.refused,
                pages_probed,
            }),
        }
    }
}

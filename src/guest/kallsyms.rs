// SPDX-License-Identifier: LGPL-2.1-or-later
//! Addresses of the kernel's symbols, from its own table.
//!
//! `kernel/kallsyms.c`, `scripts/kallsyms.c`. Where the parts of the table are is
//! told from Linux 6.0 on (commit 5fd8fea935a1).

use crate::addr::{GuestVirt, PAGE_SIZE};

use super::kernel::Kernel;
use super::memory::GuestMemory;
use super::paging::WalkError;

/// Symbols that are looked at, at most; a kernel has some 200,000.
const MAX_SYMBOLS: u64 = 1 << 22;

/// Bytes that all names take, at most; those of a kernel take some 3 MiB.
const MAX_NAMES: usize = 64 << 20;

/// Bytes of a token, at most: a whole name (`KSYM_NAME_LEN`), and its type.
const MAX_TOKEN: usize = 512 + 1;

/// Number of tokens that names are made of.
const TOKENS: usize = 256;

/// Why a symbol is not known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KallsymsError {
    /// The description lacks something.
    #[error("{0} is missing or out of range")]
    Value(&'static str),
    /// The table cannot be read.
    #[error("the symbol table cannot be read: {0}")]
    Unreadable(#[from] WalkError),
    /// The table says another address for `_stext` than VMCOREINFO.
    #[error("the symbol table contradicts VMCOREINFO")]
    Contradiction,
}

/// Addresses of `names`, in their order.
pub fn lookup<const N: usize>(
    mem: &dyn GuestMemory,
    kernel: &Kernel,
    names: [&str; N],
) -> Result<[Option<GuestVirt>; N], KallsymsError> {
    let table = Table::open(mem, kernel)?;
    let wanted = names.iter().copied().chain(["_stext"]).map(str::as_bytes);
    let places = table.places(mem, &wanted.collect::<Vec<_>>())?;
    let text = places[N].ok_or(KallsymsError::Contradiction)?;
    let stated = kernel.info.symbol("_stext");
    let mut coding = None;
    for candidate in [Coding::Itself, Coding::Base, Coding::BaseOrAbsolute] {
        if table.address(mem, candidate, text)? == stated {
            coding = Some(candidate);
            break;
        }
    }
    let coding = coding.ok_or(KallsymsError::Contradiction)?;
    let mut found = [None; N];
    for (slot, place) in found.iter_mut().zip(places) {
        if let Some(place) = place {
            *slot = table.address(mem, coding, place)?;
        }
    }
    Ok(found)
}

/// How a symbol's address is kept in 32 bits. Which of these it is shows in a
/// symbol whose address VMCOREINFO tells.
#[derive(Clone, Copy)]
enum Coding {
    /// Signed distance from where the 32 bits are (seen in Linux 7.2, which has
    /// no base any more).
    Itself,
    /// Distance from the base (Linux 6.15, commit 01157ddc58dc).
    Base,
    /// Negative: distance from the base less one; else an address itself.
    BaseOrAbsolute,
}

struct Table<'a> {
    kernel: &'a Kernel,
    names: GuestVirt,
    offsets: GuestVirt,
    number: u64,
    base: Option<u64>,
    tokens: Vec<Vec<u8>>,
}

impl<'a> Table<'a> {
    fn open(mem: &dyn GuestMemory, kernel: &'a Kernel) -> Result<Self, KallsymsError> {
        let part = |name: &'static str| kernel.info.symbol(name).ok_or(KallsymsError::Value(name));
        let number = part("kallsyms_num_syms")?;
        let number = kernel.tables.read_u64(mem, number)? & u64::from(u32::MAX);
        if number > MAX_SYMBOLS {
            return Err(KallsymsError::Value("kallsyms_num_syms"));
        }
        let base = kernel.info.symbol("kallsyms_relative_base");
        let base = base.map(|at| kernel.tables.read_u64(mem, at)).transpose()?;
        let tokens = part("kallsyms_token_table")?;
        let mut places = [0; TOKENS * 2];
        kernel
            .tables
            .read(mem, part("kallsyms_token_index")?, &mut places)?;
        let places = places
            .chunks_exact(2)
            .map(|place| u64::from(place[0]) | u64::from(place[1]) << 8);
        let tokens = places
            .map(|place| {
                let mut token = Vec::new();
                let mut bytes = Stream::new(kernel, GuestVirt(tokens.0.wrapping_add(place)));
                while token.len() < MAX_TOKEN {
                    match bytes.next(mem)? {
                        0 => break,
                        byte => token.push(byte),
                    }
                }
                Ok(token)
            })
            .collect::<Result<_, WalkError>>()?;
        Ok(Self {
            kernel,
            names: part("kallsyms_names")?,
            offsets: part("kallsyms_offsets")?,
            number,
            base,
            tokens,
        })
    }

    /// The numbers of the symbols that have these names, in their order. Most
    /// names are not even spelt out: their length tells.
    fn places(
        &self,
        mem: &dyn GuestMemory,
        names: &[&[u8]],
    ) -> Result<Vec<Option<u64>>, KallsymsError> {
        let mut places = vec![None; names.len()];
        let with_type: Vec<usize> = names.iter().map(|name| name.len() + 1).collect();
        let lengths: Vec<usize> = self.tokens.iter().map(Vec::len).collect();
        let mut bytes = Stream::new(self.kernel, self.names);
        let mut left = MAX_NAMES;
        for index in 0..self.number {
            // One byte, or two with seven bits each from Linux 6.1 on (commit
            // 73bbb94466fd); before, no name was that long.
            let mut count = usize::from(bytes.next(mem)?);
            if count & 0x80 != 0 {
                count = count & 0x7f | usize::from(bytes.next(mem)?) << 7;
            }
            left = left
                .checked_sub(count)
                .ok_or(KallsymsError::Value("kallsyms_names"))?;
            let tokens = bytes.take(mem, count)?;
            let length: usize = tokens.iter().map(|&t| lengths[usize::from(t)]).sum();
            for place in (0..names.len()).filter(|&place| with_type[place] == length) {
                let spelt = tokens.iter().flat_map(|&t| &self.tokens[usize::from(t)]);
                if spelt.skip(1).eq(names[place]) {
                    places[place] = Some(index);
                }
            }
        }
        Ok(places)
    }

    /// `None` when it takes a base and there is none.
    fn address(
        &self,
        mem: &dyn GuestMemory,
        coding: Coding,
        index: u64,
    ) -> Result<Option<GuestVirt>, WalkError> {
        let at = GuestVirt(self.offsets.0.wrapping_add(index * 4));
        let mut offset = [0; 4];
        self.kernel.tables.read(mem, at, &mut offset)?;
        let signed = i64::from(i32::from_le_bytes(offset));
        let unsigned = u64::from(u32::from_le_bytes(offset));
        Ok(match coding {
            Coding::Itself => Some(at.0.wrapping_add_signed(signed)),
            Coding::Base => self.base.map(|base| base.wrapping_add(unsigned)),
            Coding::BaseOrAbsolute if signed >= 0 => Some(unsigned),
            Coding::BaseOrAbsolute => self.base.map(|base| base.wrapping_add_signed(-1 - signed)),
        }
        .map(GuestVirt))
    }
}

/// Bytes at ascending addresses, read a page at a time.
struct Stream<'a> {
    kernel: &'a Kernel,
    next: GuestVirt,
    page: Box<[u8; PAGE_SIZE]>,
    left: usize,
    /// Bytes that were asked for at once and are not in one page.
    across: Vec<u8>,
}

impl<'a> Stream<'a> {
    fn new(kernel: &'a Kernel, next: GuestVirt) -> Self {
        Self {
            kernel,
            next,
            page: Box::new([0; PAGE_SIZE]),
            left: 0,
            across: Vec::new(),
        }
    }

    /// The next `count` bytes.
    fn take(&mut self, mem: &dyn GuestMemory, count: usize) -> Result<&[u8], WalkError> {
        if count <= self.left {
            let start = PAGE_SIZE - self.left;
            self.left -= count;
            return Ok(&self.page[start..start + count]);
        }
        self.across.clear();
        for _ in 0..count {
            let byte = self.next(mem)?;
            self.across.push(byte);
        }
        Ok(&self.across)
    }

    fn next(&mut self, mem: &dyn GuestMemory) -> Result<u8, WalkError> {
        if self.left == 0 {
            self.left = PAGE_SIZE - (self.next.0 as usize & (PAGE_SIZE - 1));
            let part = &mut self.page[PAGE_SIZE - self.left..];
            self.kernel.tables.read(mem, self.next, part)?;
            self.next = GuestVirt(self.next.0.wrapping_add(self.left as u64));
        }
        let byte = self.page[PAGE_SIZE - self.left];
        self.left -= 1;
        Ok(byte)
    }
}

#[cfg(test)]
mod tests;

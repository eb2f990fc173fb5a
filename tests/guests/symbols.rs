// SPDX-License-Identifier: LGPL-2.1-or-later
//! A table of symbols for a guest made by hand, as `scripts/kallsyms.c` writes it.

use super::synthetic::{Guest, KERNEL_MAP};

/// How addresses are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    /// As the distance from where the distance is.
    Itself,
    /// As the distance from a base below all of them.
    Base,
    /// As a negative distance from a base, or themselves when they are small.
    BaseOrAbsolute,
}

/// Where the parts of the table are in the kernel's addresses, all of them in its image.
pub const NUMBER: u64 = KERNEL_MAP + 0x110_8000;
pub const BASE: u64 = NUMBER + 0x10;
pub const TOKENS: u64 = NUMBER + 0x100;
pub const TOKEN_INDEX: u64 = NUMBER + 0x600;
pub const OFFSETS: u64 = NUMBER + 0x1000;
pub const NAMES: u64 = NUMBER + 0x2000;

/// What the base is, when there is one.
pub const BASE_ADDRESS: u64 = KERNEL_MAP + 0x100_0000;

/// Names are made of bytes, each a token, and of this one.
pub const LONG_TOKEN: (u8, &str) = (1, "__init_");

impl Guest {
    /// Writes bytes at an address of the kernel's image.
    pub fn write_image(&mut self, virt: u64, bytes: &[u8]) {
        self.write(virt - KERNEL_MAP, bytes);
    }

    /// Adds a table of these symbols: their names, without type, and addresses.
    pub fn add_symbols(&mut self, kept: Kept, symbols: &[(&str, u64)]) {
        let number = [symbols.len() as u32, 0xdead_beef];
        self.write_image(NUMBER, &number.map(u32::to_le_bytes).concat());
        self.write_image(BASE, &BASE_ADDRESS.to_le_bytes());
        self.write_tokens();
        let mut names = Vec::new();
        for (index, (name, at)) in symbols.iter().enumerate() {
            names.extend(spelt(name));
            let place = OFFSETS + index as u64 * 4;
            let offset = match kept {
                Kept::Itself => at.wrapping_sub(place),
                Kept::Base => at - BASE_ADDRESS,
                Kept::BaseOrAbsolute if *at < 1 << 31 => *at,
                Kept::BaseOrAbsolute => (BASE_ADDRESS - 1).wrapping_sub(*at),
            };
            self.write_image(place, &(offset as u32).to_le_bytes());
        }
        self.write_image(NAMES, &names);
        for (part, at) in [
            ("kallsyms_num_syms", NUMBER),
            ("kallsyms_names", NAMES),
            ("kallsyms_token_table", TOKENS),
            ("kallsyms_token_index", TOKEN_INDEX),
            ("kallsyms_offsets", OFFSETS),
        ] {
            self.line(&format!("SYMBOL({part})"), format!("{at:x}"));
        }
        if kept != Kept::Itself {
            let base = "SYMBOL(kallsyms_relative_base)";
            self.line(base, format!("{BASE:x}"));
        }
    }

    fn write_tokens(&mut self) {
        let (mut tokens, mut index) = (Vec::new(), Vec::new());
        for byte in 0..=255u8 {
            index.extend((tokens.len() as u16).to_le_bytes());
            match byte == LONG_TOKEN.0 {
                true => tokens.extend(LONG_TOKEN.1.bytes()),
                false => tokens.push(byte),
            }
            tokens.push(0);
        }
        self.write_image(TOKENS, &tokens);
        self.write_image(TOKEN_INDEX, &index);
    }
}

/// A symbol's type and name in tokens, after how many they are.
fn spelt(name: &str) -> Vec<u8> {
    let long = char::from(LONG_TOKEN.0).to_string();
    let tokens = format!("T{}", name.replace(LONG_TOKEN.1, &long));
    let mut spelt = match tokens.len() {
        short @ ..0x80 => vec![short as u8],
        long => vec![long as u8 | 0x80, (long >> 7) as u8],
    };
    spelt.extend(tokens.bytes());
    spelt
}

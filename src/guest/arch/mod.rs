// SPDX-License-Identifier: LGPL-2.1-or-later
//! What is so on one architecture only.

pub mod x86_64;

// SPDX-License-Identifier: LGPL-2.1-or-later
//! How fast and how urgently: decisions as pure functions of samples and time.
//! Knows neither Xen nor files.
#![forbid(unsafe_code)]

pub mod adaptive;
pub mod bucket;
pub mod controller;
pub mod guard;
pub mod headstart;
pub mod idle;
pub mod policy;
pub mod sample;
pub mod speed;

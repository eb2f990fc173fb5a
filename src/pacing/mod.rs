//! How fast and how urgently: decisions as pure functions of samples and time.
//! Knows neither Xen nor files.

pub mod bucket;
pub mod guard;

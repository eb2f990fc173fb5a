//! What is told of a job: its log, and what is said when a crash is over.

pub mod log;
pub(crate) mod report;

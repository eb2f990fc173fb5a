//! Tests of the engine as a whole, against sinks that record and fail.

mod failures;
pub(super) mod guest;
mod integrity;
mod order;
pub(super) mod recorder;

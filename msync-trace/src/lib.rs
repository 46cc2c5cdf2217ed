//! msync-trace tells people when their kernel said "your data is safe" and it was not.
//!
//! Rooms, and who may import whom: model ← correlate, schema ← source, enrich, output, store ←
//! check, rescue ← cmd ← main. `tests/layers.rs` holds that rule.

pub mod check;
pub mod cli;
pub mod cmd;
pub mod correlate;
pub mod enrich;
pub mod model;
pub mod output;
#[cfg(target_os = "linux")]
pub mod rescue;
pub mod schema;
pub mod source;
pub mod store;

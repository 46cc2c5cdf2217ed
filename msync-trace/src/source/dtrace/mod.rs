//! Facts from DTrace: the D scripts of `dtrace/` print them, one per line.
//!
//! `escaped` reads strings, `line` reads a line, `order` puts lines in order and finds gaps, `facts`
//! maps them to the words of the model, and `reader` is all of that together: bytes in, facts out,
//! with neither clock nor input. `saved` feeds it from a file or a pipe, `process` from a dtrace
//! that it runs. The protocol is described in `docs/dtrace-protocol.md`.

mod escaped;
mod facts;
mod line;
mod order;
mod process;
mod reader;
mod saved;
mod script;

pub use process::{Dtrace, DtraceError, DtraceOptions};
pub use reader::{Complaint, Reader, Refusal, Taken};
pub use saved::{Input, Saved, SavedError};

/// What the start record calls it.
const TIER: &str = "dtrace";

//! `msync-trace report`: after the fact, from recorded files, what was lost and who was told.

pub mod time_words;

//! `manifest.json`: what a directory of rescued bytes holds, described in docs/rescue.md.

use serde::{Deserialize, Serialize};

use super::compare::Pages;
use crate::{
    model::{ByteRange, IncidentId, InodeKey, Verified},
    schema::{Comparison, WallTime},
};

/// The version of the manifest. It changes when a member changes its meaning or goes away.
pub const MANIFEST: u32 = 1;

/// What was found in one file, and what was saved of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST`].
    pub schema: u32,
    /// Always `rescue`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Version of msync-trace.
    pub version: String,
    /// When it was looked at.
    pub time: WallTime,
    /// Name of this machine.
    pub host: Option<String>,
    /// Of this boot.
    pub boot_id: Option<String>,
    /// `uname -r`.
    pub kernel: String,
    /// The incident, if the ranges are those of one.
    pub incident: Option<IncidentId>,
    /// The record in which it is.
    pub record: Option<String>,
    /// The file.
    pub file: RescuedFile,
    /// Bytes of a page.
    pub page_size: u64,
    /// What was asked for; `end` null is to the end of the file.
    pub ranges: Vec<ByteRange>,
    /// Each page of it, in the order of the file, pages in the same state together.
    pub pages: Vec<Pages>,
    /// What the comparison proves.
    pub verified: Verified,
    /// How much was compared.
    pub comparison: Comparison,
    /// What was saved, in the order of the file; empty without `--out`.
    pub saved: Vec<Saved>,
    /// Why not everything that was in memory is in `saved`.
    pub not_saved: Option<String>,
}

/// The file that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RescuedFile {
    /// Its path: as it was given, or as the incident names it. What is no UTF-8 has U+FFFD in its
    /// place.
    pub path: Option<String>,
    /// The exact bytes, percent encoded, where `path` cannot show them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_bytes: Option<String>,
    /// Its identity.
    pub inode: InodeKey,
    /// Device number of its filesystem.
    pub dev: String,
    /// Its length, in bytes.
    pub size: u64,
}

/// Surviving bytes without a gap, in a file of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Where they belong in the file.
    #[serde(flatten)]
    pub range: ByteRange,
    /// The file that has what memory had.
    pub memory_file: String,
    /// Its SHA-256.
    pub memory_sha256: String,
    /// The file that has what the disk had; null if that could not be read.
    pub disk_file: Option<String>,
    /// Its SHA-256.
    pub disk_sha256: Option<String>,
}

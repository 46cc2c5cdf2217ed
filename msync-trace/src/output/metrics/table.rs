//! The one table of all metrics: `/metrics`, its HELP texts and docs/metrics.md are made from it.

use std::fmt::Write as _;

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only up, from 0 at the start.
    Counter,
    /// Up and down.
    Gauge,
}

impl Kind {
    /// As TYPE says it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// A metric with all its labels.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// `msync_trace_…`.
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it says, and its limits.
    pub help: &'static str,
}

macro_rules! families {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(#[doc = $help]
        pub const $constant: &Family = &Family {
            name: concat!("msync_trace_", $name),
            kind: Kind::$kind,
            labels: &[$($label),*],
            help: $help,
        };)*

        /// All of them, in the order in which they are shown.
        pub const FAMILIES: &[&Family] = &[$($constant),*];
    };
}

families! {
    INCIDENTS = Counter "incidents_total" []
        "Incidents: times a process was told success over bytes that the kernel had failed to write. There from the start with 0: alert on its increase.";
    INCIDENT_BYTES = Counter "incident_bytes_total" []
        "Bytes lost silently, summed over incidents: bytes that two processes were lied to about count twice, unknown ranges not at all.";
    LOSSES = Counter "losses_total" ["fstype", "device", "errno", "told"]
        "Incidents by filesystem type, device, error and who had been given the error before. Mounted filesystems are there from the start with EIO.";
    LOST_BYTES = Counter "lost_bytes_total" ["fstype", "device", "errno", "told"]
        "Bytes of these incidents, as far as they are known.";
    CHANGES = Counter "incident_changes_total" ["change"]
        "What became of incidents afterwards: repeated, recovered, discarded, evicted.";
    WRITE_FAILURES = Counter "write_failures_total" ["fstype", "device", "errno"]
        "Writes of page-cache bytes that failed, each told to somebody or not. Mounted filesystems are there from the start with EIO.";
    STORAGE_ERRORS = Counter "storage_errors_total" ["what"]
        "Disks that could not flush, filesystems that reported an error or were shut down.";
    SYNC_RESULTS = Counter "sync_results_total" ["call", "result"]
        "Returns of sync calls on inodes with a known failure. Calls on all other inodes are not looked at.";
    FACTS = Counter "facts_total" []
        "Facts from the kernel side.";
    UNSEEN = Counter "unseen_events_total" ["cause"]
        "Events that were dropped or could not be seen, by cause: rings and maps that were full, missing hooks, skipped programs. Any increase means: no all-clear.";
    RING_SEEN = Counter "ring_records_seen_total" ["ring"]
        "Records that the kernel side had for a ring: those sent and those dropped because it was full.";
    RING_SENT = Counter "ring_records_sent_total" ["ring"]
        "Records that arrived through a ring.";
    RING_DROPPED = Counter "ring_records_dropped_total" ["ring"]
        "Records that found a ring full.";
    MAP_FULL = Counter "map_full_total" ["map"]
        "Entries that found a map of the kernel side full.";
    HOOK_ATTACHED = Gauge "hook_attached" ["hook"]
        "1: attached, or ready to be attached when a failure appears. 0: not needed here, waiting for a kernel module, or not to be had.";
    HOOKS_MISSING = Gauge "hooks_missing" []
        "Hooks that cannot be had and that nothing makes up for. Not 0 means: no all-clear.";
    PROBE_MISSES = Counter "kernel_probe_misses_total" ["sees"]
        "Times the kernel skipped one of the programs. failures: it would have seen failures; more: what it sees matters only while failures are known.";
    TRACKED_INODES = Gauge "tracked_inodes" []
        "Inodes that the kernel side follows because a write failed.";
    TRACKED_INODES_LIMIT = Gauge "tracked_inodes_limit" []
        "How many it can follow.";
    OUTSTANDING_INODES = Gauge "outstanding_inodes" []
        "Inodes with failed bytes that were neither written nor given up since.";
    COMPLETE = Gauge "complete" []
        "1 as long as everything that could have been seen was seen; 0: nothing found is no all-clear.";
    STORE_ERRORS = Counter "store_errors_total" []
        "Failed attempts to write the store. What is found waits in memory meanwhile.";
    STORE_LOST = Counter "store_lost_total" ["what"]
        "Facts and incidents that are not in the store because it could not be written for too long.";
    OUTPUT_DELIVERED = Counter "output_delivered_total" ["output"]
        "Records that an output took.";
    OUTPUT_DROPPED = Counter "output_dropped_total" ["output"]
        "Records that an output will never get: its queue was full, it refused them, or its limits left them out.";
    OUTPUT_ERRORS = Counter "output_errors_total" ["output"]
        "Failed attempts of an output.";
    OUTPUT_RETRIES = Counter "output_retries_total" ["output"]
        "Attempts of an output after the first with the same record.";
    OUTPUT_WAITING = Gauge "output_waiting_records" ["output"]
        "Records that wait for an output.";
    READY = Gauge "ready" []
        "1 from when the hooks are attached and the self-check passed until it ends.";
    DRAINS = Counter "drains_total" []
        "Times the rings were emptied.";
    LAST_DRAIN = Gauge "last_drain_timestamp_seconds" []
        "When the rings were emptied last. More than half a minute ago means: tracing stalls.";
    START = Gauge "start_timestamp_seconds" []
        "When tracing began.";
    BUILD_INFO = Gauge "build_info" ["version", "abi"]
        "Always 1: version of msync-trace, and of the interface to its kernel side.";
}

/// Of docs/metrics.md: the list of all metrics.
#[must_use]
pub fn document() -> String {
    let mut page = String::from(
        "<!-- Made from msync-trace/src/output/metrics/table.rs; \
         `UPDATE_DOCS=1 cargo test -p msync-trace --test metrics` writes it anew. -->\n\n\
         # Metrics\n\n\
         What `msync-trace serve` shows at `/metrics` (`--listen`) and in the text file for\n\
         node_exporter (`--metrics-textfile`). Every counter begins with 0 when tracing begins. No label\n\
         holds an inode, a path or a process. Of devices at most 64 are told apart, of filesystem types\n\
         16, of errors 32; what comes after them is `other`.\n\n\
         | metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for family in FAMILIES {
        let labels: Vec<_> = family.labels.iter().map(|it| format!("`{it}`")).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} |",
            family.name,
            family.kind.word(),
            labels.join(", "),
            family.help
        );
    }
    page
}

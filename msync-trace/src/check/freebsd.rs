//! Judges what was seen of a FreeBSD machine: whether its DTrace can give us facts. Pure.

use super::{
    Item, Observed, Status,
    judge::{item, version},
};

/// The releases that the D script is written for.
const RELEASES: std::ops::RangeInclusive<u32> = 13..=15;

/// Every judgement, those first that the others depend on.
pub(super) fn judge(seen: &Observed) -> Vec<Item> {
    vec![
        item("system", Status::Ok, "FreeBSD; its DTrace gives the facts"),
        kernel(seen),
        architecture(seen),
        privileges(seen),
        dtrace(seen),
        modules(seen),
    ]
}

fn kernel(seen: &Observed) -> Item {
    let known = version(&seen.release).is_some_and(|(major, _)| RELEASES.contains(&major));
    if known {
        return item("kernel", Status::Ok, &seen.release);
    }
    item(
        "kernel",
        Status::Warn,
        format!(
            "the D script is written for FreeBSD {} to {}; this is {}",
            RELEASES.start(),
            RELEASES.end(),
            seen.release
        ),
    )
}

fn architecture(seen: &Observed) -> Item {
    match seen.machine.as_str() {
        "amd64" => item("architecture", Status::Ok, "amd64"),
        other => item(
            "architecture",
            Status::Warn,
            format!("{other} is not tested; amd64 is"),
        ),
    }
}

fn privileges(seen: &Observed) -> Item {
    if seen.root {
        return item("privileges", Status::Ok, "root");
    }
    item(
        "privileges",
        Status::Fail,
        "not permitted: DTrace is for root",
    )
    .remedy("run it as root")
}

fn dtrace(seen: &Observed) -> Item {
    if seen.dtrace {
        return item("dtrace", Status::Ok, "/usr/sbin/dtrace");
    }
    item("dtrace", Status::Fail, "there is no /usr/sbin/dtrace").remedy(
        "install the part of the base system that has it (pkg install FreeBSD-dtrace where the \
         base system comes in packages)",
    )
}

fn modules(seen: &Observed) -> Item {
    item(
        "modules",
        Status::Ok,
        if seen.dtrace_device {
            "loaded"
        } else {
            // dt_vopen of libdtrace: where the device is missing it loads dtraceall.
            "not loaded yet: dtrace loads them at start, as `kldload dtraceall` does (a jail \
             cannot)"
        },
    )
}

//! Judges what was seen: pure.

use super::{BpfAnswer, Item, Lockdown, Observed, Status, freebsd};

/// Oldest kernel with everything that the programs need.
const OLDEST: (u32, u32) = (5, 10);
/// Since then BPF memory is charged to the cgroup and not to `RLIMIT_MEMLOCK` (commit
/// 3ac1f01b43b6).
const NO_MEMLOCK: (u32, u32) = (5, 11);
/// What the maps take on a kernel that counts them as locked memory.
const MEMLOCK_NEEDED: u64 = 256 << 20;

const CAP_DAC_READ_SEARCH: (u32, &str) = (2, "CAP_DAC_READ_SEARCH");
const CAP_SYS_PTRACE: (u32, &str) = (19, "CAP_SYS_PTRACE");
const CAP_SYS_ADMIN: (u32, &str) = (21, "CAP_SYS_ADMIN");
const CAP_SYS_RESOURCE: (u32, &str) = (24, "CAP_SYS_RESOURCE");
const CAP_PERFMON: (u32, &str) = (38, "CAP_PERFMON");
const CAP_BPF: (u32, &str) = (39, "CAP_BPF");

/// Every judgement, those first that the others depend on.
#[must_use]
pub fn judge(seen: &Observed) -> Vec<Item> {
    match seen.system.as_str() {
        "Linux" => linux(seen),
        "FreeBSD" => freebsd::judge(seen),
        other => vec![
            item(
                "system",
                Status::Fail,
                format!("live tracing needs Linux or FreeBSD; this is {other}"),
            )
            .remedy("run it where the files are written, if that is another machine"),
        ],
    }
}

fn linux(seen: &Observed) -> Vec<Item> {
    let system = item("system", Status::Ok, "Linux");
    let mut items = vec![system, kernel(seen), architecture(seen)];
    items.push(privileges(seen));
    items.extend(memlock(seen));
    items.extend([lockdown(seen), bpf(seen), btf(seen)]);
    items.extend([names(seen), kprobes(seen)]);
    items.extend(fentry(seen));
    items.push(tracefs(seen));
    items
}

pub(super) fn item(id: &'static str, status: Status, detail: impl Into<String>) -> Item {
    Item {
        id,
        status,
        detail: detail.into(),
        remedy: None,
    }
}

impl Item {
    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

fn kernel(seen: &Observed) -> Item {
    match version(&seen.release) {
        Some(version) if version >= OLDEST => item("kernel", Status::Ok, &seen.release),
        Some(_) => item(
            "kernel",
            Status::Fail,
            format!(
                "kernel {} is too old: 5.10 is the oldest that works",
                seen.release
            ),
        )
        .remedy("boot a newer kernel"),
        None => item(
            "kernel",
            Status::Warn,
            format!("cannot tell the version from {:?}", seen.release),
        ),
    }
}

fn architecture(seen: &Observed) -> Item {
    match seen.machine.as_str() {
        "x86_64" => item("architecture", Status::Ok, "x86_64"),
        other => item(
            "architecture",
            Status::Warn,
            format!("{other} is not tested; x86_64 is"),
        ),
    }
}

fn privileges(seen: &Observed) -> Item {
    const ID: &str = "privileges";
    let Some(capabilities) = seen.capabilities else {
        return item(
            ID,
            Status::Warn,
            "cannot tell: /proc/self/status does not say",
        );
    };
    let has = |capability: (u32, &str)| capabilities.has(capability.0);
    if has(CAP_SYS_ADMIN) {
        return item(ID, Status::Ok, "CAP_SYS_ADMIN");
    }
    let split = version(&seen.release).is_none_or(|version| version >= (5, 8));
    if !split {
        return item(ID, Status::Fail, "not permitted: CAP_SYS_ADMIN is missing")
            .remedy("run it as root (sudo msync-trace)");
    }
    let missing: Vec<_> = [CAP_BPF, CAP_PERFMON]
        .into_iter()
        .filter(|capability| !has(*capability))
        .map(|(_, name)| name)
        .collect();
    if missing.is_empty() {
        return item(ID, Status::Ok, "CAP_BPF and CAP_PERFMON");
    }
    item(
        ID,
        Status::Fail,
        format!("not permitted: {} missing", list(&missing)),
    )
    .remedy(
        "run it as root (sudo msync-trace), or give the file capabilities: \
         setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search+ep msync-trace",
    )
}

/// Only on kernels that count BPF maps as locked memory.
fn memlock(seen: &Observed) -> Option<Item> {
    const ID: &str = "memlock";
    if version(&seen.release).is_none_or(|version| version >= NO_MEMLOCK) {
        return None;
    }
    let may_raise = seen
        .capabilities
        .is_none_or(|capabilities| capabilities.has(CAP_SYS_RESOURCE.0));
    Some(match seen.memlock {
        _ if may_raise => item(ID, Status::Ok, "the limit of locked memory can be raised"),
        None => item(ID, Status::Ok, "locked memory is unlimited"),
        Some(limit) if limit >= MEMLOCK_NEEDED => item(
            ID,
            Status::Ok,
            format!("{} MiB of locked memory", limit >> 20),
        ),
        Some(limit) => item(
            ID,
            Status::Fail,
            format!(
                "only {} KiB of locked memory, which this kernel counts BPF maps as, and \
                 CAP_SYS_RESOURCE is missing",
                limit >> 10
            ),
        )
        .remedy("run it as root, or raise the limit (ulimit -l unlimited)"),
    })
}

fn lockdown(seen: &Observed) -> Item {
    const ID: &str = "lockdown";
    match seen.lockdown {
        Some(Lockdown::None) => item(ID, Status::Ok, "off"),
        Some(Lockdown::Integrity) => item(ID, Status::Ok, "integrity; tracing is allowed"),
        Some(Lockdown::Confidentiality) => item(
            ID,
            Status::Fail,
            "the kernel is locked down (confidentiality) and refuses to be read by tracers",
        )
        .remedy("boot with lockdown=integrity"),
        None => item(
            ID,
            Status::Ok,
            "not known (securityfs is not mounted, or the kernel has no lockdown)",
        ),
    }
}

fn bpf(seen: &Observed) -> Item {
    const ID: &str = "bpf";
    match seen.bpf {
        BpfAnswer::Works => item(ID, Status::Ok, "programs can be loaded"),
        BpfAnswer::NoSuchCall => item(ID, Status::Fail, "this kernel was built without bpf()")
            .remedy("boot a kernel with CONFIG_BPF_SYSCALL=y"),
        BpfAnswer::Refused(errno) if seen.user_namespace => item(
            ID,
            Status::Fail,
            format!("bpf() is refused ({errno}): this is a user namespace, whose root is not the machine's"),
        )
        .remedy("run it outside, or in a container that shares the host's user namespace"),
        BpfAnswer::Refused(errno) => item(
            ID,
            Status::Fail,
            format!("bpf() is refused ({errno}), by missing privileges, a seccomp filter or a security module"),
        )
        .remedy(
            "run it as root; in a container with the capabilities BPF, PERFMON and SYS_PTRACE \
             and a seccomp profile that allows bpf",
        ),
    }
}

fn btf(seen: &Observed) -> Item {
    const ID: &str = "btf";
    match &seen.btf {
        Ok(size) => item(
            ID,
            Status::Ok,
            format!("/sys/kernel/btf/vmlinux, {} KiB", size >> 10),
        ),
        Err(error) => item(
            ID,
            Status::Fail,
            format!(
                "the kernel's type information (/sys/kernel/btf/vmlinux) cannot be read: {error}"
            ),
        )
        .remedy("boot a kernel with CONFIG_DEBUG_INFO_BTF=y (all current distribution kernels)"),
    }
}

fn names(seen: &Observed) -> Item {
    const ID: &str = "names";
    let missing: Vec<_> = [CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH]
        .into_iter()
        .filter(|(number, _)| {
            seen.capabilities
                .is_some_and(|capabilities| !capabilities.has(*number))
        })
        .map(|(_, name)| name)
        .collect();
    if missing.is_empty() {
        return item(
            ID,
            Status::Ok,
            "programs and mounts of other users' processes can be looked up",
        );
    }
    item(
        ID,
        Status::Warn,
        format!(
            "{} missing: the program and mounts of other users' processes stay unknown",
            list(&missing)
        ),
    )
    .remedy("run it as root")
}

fn kprobes(seen: &Observed) -> Item {
    const ID: &str = "kprobes";
    // No release of Linux knows more than 2: Debian, Ubuntu and others refuse perf_event_open then.
    let all = seen.capabilities.is_none_or(|own| own.has(CAP_SYS_ADMIN.0));
    if seen.kprobe_events && seen.perf_paranoid > 2 && !all {
        let refused = format!(
            "kernel.perf_event_paranoid is {}: refused without CAP_SYS_ADMIN; on some filesystems \
             evidence is less exact",
            seen.perf_paranoid
        );
        return item(ID, Status::Warn, refused).remedy("sysctl kernel.perf_event_paranoid=2");
    }
    match seen.symbols {
        _ if seen.kprobe_events => item(ID, Status::Ok, "available"),
        Some([true, ..]) => item(
            ID,
            Status::Warn,
            "the kernel has kprobes, but perf cannot make them (CONFIG_KPROBE_EVENTS)",
        ),
        _ => item(
            ID,
            Status::Warn,
            "the kernel was built without kprobes: tracing uses tracepoints where fentry is missing",
        ),
    }
}

/// Only if the symbols were looked at.
fn fentry(seen: &Observed) -> Option<Item> {
    const ID: &str = "fentry";
    if seen.fentry_attached == Some(true) {
        return Some(item(ID, Status::Ok, "works"));
    }
    let [_, trampolines, fentry] = seen.symbols?;
    Some(if !seen.jit {
        item(
            ID,
            Status::Warn,
            "the BPF compiler is off, and fentry needs it",
        )
        .remedy("sysctl net.core.bpf_jit_enable=1")
    } else if seen.function_tracing_refused {
        item(
            ID,
            Status::Warn,
            "probably refused, as function tracing is: tracing uses kprobes or tracepoints",
        )
    } else if trampolines && fentry && seen.fentry_attached == Some(false) {
        item(
            ID,
            Status::Warn,
            "tried, and refused: tracing uses kprobes or tracepoints",
        )
    } else if trampolines && fentry {
        item(ID, Status::Ok, "probable; `check --attach` tries it")
    } else {
        item(
            ID,
            Status::Warn,
            "the kernel was built without BPF trampolines or function tracing: tracing uses \
             kprobes or tracepoints",
        )
    })
}

fn tracefs(seen: &Observed) -> Item {
    let mounted = if seen.tracefs {
        "mounted"
    } else {
        "not mounted"
    };
    item("tracefs", Status::Ok, format!("{mounted}; not needed"))
}

/// `CAP_BPF and CAP_PERFMON are`, `CAP_BPF is`.
fn list(names: &[&str]) -> String {
    let verb = if names.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", names.join(" and "))
}

/// `6.1.0-49-amd64` is 6.1.
pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

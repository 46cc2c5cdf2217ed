//! Looks at the machine; judges nothing.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
};

use rustix::process::{Resource, getrlimit};

use crate::model::Errno;

/// What was seen of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// `uname -s`.
    pub system: String,
    /// `uname -r`.
    pub release: String,
    /// `uname -m`.
    pub machine: String,
    /// Whether we are root (its effective user id).
    pub root: bool,
    /// Whether the base system's `dtrace` is where FreeBSD has it (`/usr/sbin/dtrace`).
    pub dtrace: bool,
    /// Whether the device through which `dtrace` talks to FreeBSD's kernel is there
    /// (`/dev/dtrace/dtrace`): its modules are loaded.
    pub dtrace_device: bool,
    /// Effective capabilities; `None` if `/proc/self/status` does not say.
    pub capabilities: Option<Capabilities>,
    /// Whether we are in a user namespace other than the first, where capabilities are worth
    /// nothing to the kernel at large.
    pub user_namespace: bool,
    /// Limit of locked memory in bytes; `None`: unlimited.
    pub memlock: Option<u64>,
    /// Size of the kernel's BTF, or why it cannot be read.
    pub btf: Result<u64, String>,
    /// Lockdown mode; `None` if securityfs does not say.
    pub lockdown: Option<Lockdown>,
    /// Whether perf can make kprobes (`/sys/bus/event_source/devices/kprobe`).
    pub kprobe_events: bool,
    /// `kernel.perf_event_paranoid`; 2 (the kernel's own default) if it does not say.
    pub perf_paranoid: i32,
    /// Whether the BPF compiler is on (`net.core.bpf_jit_enable`).
    pub jit: bool,
    /// Whether tracefs is mounted at one of its usual places.
    pub tracefs: bool,
    /// Whether the list of functions that can be traced is refused to us: then fentry will be.
    pub function_tracing_refused: bool,
    /// What bpf() says to a program of two instructions.
    pub bpf: BpfAnswer,
    /// Whether a hook was attached by fentry or fexit; `None` if nobody tried.
    pub fentry_attached: Option<bool>,
    /// Kernel symbols of [`SYMBOLS`] that exist, by position; `None` if nobody looked (it takes
    /// 50 ms).
    pub symbols: Option<[bool; SYMBOLS.len()]>,
}

/// Symbols that tell how the kernel was built.
pub(super) const SYMBOLS: [&str; 3] = ["register_kprobe", "bpf_trampoline_link_prog", "__fentry__"];

/// A set of capabilities, as in `CapEff`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// Whether it has the capability with this number (`linux/capability.h`).
    #[must_use]
    pub fn has(self, number: u32) -> bool {
        self.0 & (1 << number) != 0
    }
}

/// `/sys/kernel/security/lockdown` (kernel_lockdown(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockdown {
    /// Not locked down.
    None,
    /// User space must not change the kernel. Tracing works.
    Integrity,
    /// User space must not read the kernel either. Tracing is refused.
    Confidentiality,
}

/// What bpf() says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BpfAnswer {
    /// Loaded.
    Works,
    /// Refused with this error.
    Refused(Errno),
    /// There is no bpf() on this system.
    NoSuchCall,
}

impl Observed {
    /// Looks at everything that is quick to see, below this root.
    #[must_use]
    pub fn look(root: &Path) -> Self {
        let names = rustix::system::uname();
        let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
        let read = |path: &str| fs::read_to_string(root.join(path)).ok();
        Self {
            system: text(names.sysname()),
            release: text(names.release()),
            machine: text(names.machine()),
            root: rustix::process::geteuid().is_root(),
            dtrace: root.join("usr/sbin/dtrace").is_file(),
            dtrace_device: root.join("dev/dtrace/dtrace").exists(),
            capabilities: read("proc/self/status").as_deref().and_then(effective),
            user_namespace: read("proc/self/uid_map").is_some_and(|map| !maps_everyone(&map)),
            memlock: getrlimit(Resource::Memlock).current,
            btf: btf(&root.join("sys/kernel/btf/vmlinux")),
            lockdown: read("sys/kernel/security/lockdown")
                .as_deref()
                .and_then(lockdown),
            kprobe_events: root.join("sys/bus/event_source/devices/kprobe").exists(),
            perf_paranoid: read("proc/sys/kernel/perf_event_paranoid")
                .and_then(|number| number.trim().parse().ok())
                .unwrap_or(2),
            jit: read("proc/sys/net/core/bpf_jit_enable").is_none_or(|on| on.trim() != "0"),
            tracefs: [
                "sys/kernel/tracing/events",
                "sys/kernel/debug/tracing/events",
            ]
            .iter()
            .any(|path| root.join(path).exists()),
            function_tracing_refused: is_refused(
                &root.join("sys/kernel/tracing/available_filter_functions"),
            ),
            bpf: ask_bpf(),
            fentry_attached: None,
            symbols: None,
        }
    }

    /// Looks through all kernel symbols too.
    #[must_use]
    pub fn with_symbols(mut self, root: &Path) -> Self {
        self.symbols = symbols(&root.join("proc/kallsyms"));
        self
    }
}

/// The line of `CapEff`, in hexadecimal.
fn effective(status: &str) -> Option<Capabilities> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok().map(Capabilities)
}

/// Whether this is the first user namespace: `0 0 4294967295`.
fn maps_everyone(uid_map: &str) -> bool {
    let fields: Vec<_> = uid_map.split_ascii_whitespace().collect();
    fields == ["0", "0", "4294967295"]
}

/// `none [integrity] confidentiality`.
fn lockdown(text: &str) -> Option<Lockdown> {
    let (_, rest) = text.split_once('[')?;
    match rest.split_once(']')?.0 {
        "none" => Some(Lockdown::None),
        "integrity" => Some(Lockdown::Integrity),
        "confidentiality" => Some(Lockdown::Confidentiality),
        _ => None,
    }
}

fn is_refused(path: &Path) -> bool {
    fs::File::open(path).is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

fn btf(path: &Path) -> Result<u64, String> {
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    let meta = file.metadata().map_err(|error| error.to_string())?;
    Ok(meta.len())
}

fn symbols(kallsyms: &Path) -> Option<[bool; SYMBOLS.len()]> {
    let mut found = [false; SYMBOLS.len()];
    let mut lines = BufReader::with_capacity(1 << 16, fs::File::open(kallsyms).ok()?);
    let mut line = Vec::new();
    // `ffffffff81000000 T _text`, and a tab and `[module]` for those of modules.
    while lines.read_until(b'\n', &mut line).ok()? > 0 {
        let name = line
            .split(u8::is_ascii_whitespace)
            .nth(2)
            .unwrap_or_default();
        for (symbol, found) in SYMBOLS.iter().zip(&mut found) {
            *found |= symbol.as_bytes() == name;
        }
        line.clear();
    }
    Some(found)
}

/// Asks as tracing will: before 5.11 what is pinned counts against the limit of locked memory, and a
/// start raises that first.
#[cfg(target_os = "linux")]
fn ask_bpf() -> BpfAnswer {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Memlock);
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    let raised = setrlimit(Resource::Memlock, unlimited).is_ok();
    let answer = load_nothing();
    if raised {
        // Who may raise it may lower it.
        let _ = setrlimit(Resource::Memlock, limit);
    }
    answer
}

/// Loads a raw-tracepoint program that does nothing, as our own programs will be loaded.
#[cfg(target_os = "linux")]
fn load_nothing() -> BpfAnswer {
    use std::os::fd::{FromRawFd, OwnedFd};

    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_PROG_TYPE_RAW_TRACEPOINT: u32 = 17;
    /// r0 = 0; exit
    const PROGRAM: [u64; 2] = [0x0000_0000_0000_00b7, 0x0000_0000_0000_0095];

    /// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes the rest as zero.
    #[repr(C)]
    struct ProgLoad {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
    }

    let attr = ProgLoad {
        prog_type: BPF_PROG_TYPE_RAW_TRACEPOINT,
        insn_cnt: 2,
        insns: PROGRAM.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
    };
    // SAFETY: `attr` and what it points to outlive the call, and its size is given.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const attr,
            size_of::<ProgLoad>(),
        )
    };
    if let Ok(fd) = i32::try_from(fd)
        && fd >= 0
    {
        // SAFETY: the kernel has just given us this descriptor.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
        return BpfAnswer::Works;
    }
    let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    match u32::try_from(error).ok().and_then(Errno::new) {
        Some(errno) if error != libc::ENOSYS => BpfAnswer::Refused(errno),
        _ => BpfAnswer::NoSuchCall,
    }
}

#[cfg(not(target_os = "linux"))]
fn ask_bpf() -> BpfAnswer {
    BpfAnswer::NoSuchCall
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_in_brackets_is_the_one_in_force() {
        assert_eq!(
            lockdown("[none] integrity confidentiality\n"),
            Some(Lockdown::None)
        );
        assert_eq!(
            lockdown("none [integrity] confidentiality"),
            Some(Lockdown::Integrity)
        );
        assert_eq!(
            lockdown("none integrity [confidentiality]"),
            Some(Lockdown::Confidentiality)
        );
        for bad in ["", "none", "[", "[new]", "integrity]"] {
            assert_eq!(lockdown(bad), None, "{bad}");
        }
    }

    #[test]
    fn capabilities_are_read_by_number() {
        let status = "Name:\tx\nCapPrm:\tffffffffffffffff\nCapEff:\t000000c000000000\n";
        let capabilities = effective(status).unwrap();
        assert!(capabilities.has(38) && capabilities.has(39) && !capabilities.has(21));
        assert_eq!(effective("CapEff:\tnonsense"), None);
    }

    #[test]
    fn a_user_namespace_is_noticed() {
        assert!(maps_everyone("         0          0 4294967295\n"));
        assert!(!maps_everyone("         0       1000          1\n"));
    }

    #[test]
    fn symbols_of_modules_count_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kallsyms");
        fs::write(
            &path,
            "0000000000000000 T register_kprobes\n0000000000000000 t __fentry__\t[m]\ncut",
        )
        .unwrap();
        assert_eq!(symbols(&path), Some([false, false, true]));
    }
}

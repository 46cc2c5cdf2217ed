//! Facts on the running kernel: version, BTF, symbols.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::Path,
    sync::Arc,
};

use super::{btf::Btf, hooks::END_IO, layout::Types};

/// Modules whose types the layout needs where they are not built in.
const FILESYSTEMS: &[&str] = &["ext4", "xfs", "btrfs", "nfs", "fuse", "netfs"];

/// Kernel version, (major, minor), from a release such as `6.12.107+deb13-amd64`.
#[must_use]
pub fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// BTF of the running kernel and its filesystem modules.
#[must_use]
pub fn types() -> Types {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let version = parse_release(&release).unwrap_or((0, 0));
    let Ok(vmlinux) = Btf::load_vmlinux() else {
        return Types {
            version,
            ..Types::default()
        };
    };
    let vmlinux = Arc::new(vmlinux);
    let modules = FILESYSTEMS
        .iter()
        .filter(|name| Path::new("/sys/kernel/btf").join(name).exists())
        .filter_map(|name| {
            let btf = Btf::load_module(name, vmlinux.clone()).ok()?;
            Some(((*name).to_owned(), Arc::new(btf)))
        })
        .collect();
    Types {
        vmlinux: Some(vmlinux),
        modules,
        version,
    }
}

/// The kernel's symbols, and where the packaged service finds them: systemd hides the first place from it
/// (`ProtectKernelTunables=`), mostly behind an empty file.
const KALLSYMS: [&str; 2] = ["/proc/kallsyms", "/run/msync-trace/kallsyms"];

fn kallsyms() -> io::Result<impl BufRead> {
    // Several MiB: read in pieces.
    let open = |path| Ok(BufReader::with_capacity(64 << 10, File::open(path)?));
    let [own, shown] = KALLSYMS;
    let mut symbols = open(own);
    let there = symbols.as_mut().is_ok_and(|symbols| {
        let piece = symbols.fill_buf();
        piece.is_ok_and(|piece| !piece.is_empty())
    });
    if there {
        symbols
    } else {
        open(shown).or(symbols)
    }
}

/// Addresses of the functions of [`END_IO`], and what their bio tells. `/proc/kallsyms` shows zeros
/// to those who may not see them; these count as absent.
///
/// # Errors
/// When `/proc/kallsyms` cannot be read.
pub fn end_io_owners() -> io::Result<Vec<(u64, u32)>> {
    find_symbols(kallsyms()?)
}

/// Shows each symbol: its address in hexadecimal and its name.
fn each_symbol(mut kallsyms: impl BufRead, mut show: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
    let mut line = Vec::new();
    while kallsyms.read_until(b'\n', &mut line)? > 0 {
        // "ffffffff81a4a9b0 t btrfs_simple_end_io\t[btrfs]"
        if let Some((address, rest)) = line.trim_ascii_end().split_at_checked(19) {
            let name = rest.split(|&b| b == b'\t').next().unwrap_or_default();
            show(&address[..16], name);
        }
        line.clear();
    }
    Ok(())
}

fn find_symbols(kallsyms: impl BufRead) -> io::Result<Vec<(u64, u32)>> {
    let wanted: BTreeMap<&[u8], u32> = END_IO
        .iter()
        .map(|(name, owner)| (name.as_bytes(), *owner))
        .collect();
    let mut found = Vec::new();
    each_symbol(kallsyms, |address, name| {
        let Some(owner) = wanted.get(name) else {
            return;
        };
        let address = std::str::from_utf8(address).ok();
        let address = address.and_then(|hex| u64::from_str_radix(hex, 16).ok());
        if let Some(address) = address.filter(|&address| address != 0) {
            found.push((address, *owner));
        }
    })?;
    Ok(found)
}

/// Which of these functions the kernel and its modules have, from `/proc/kallsyms` (which names
/// them to everybody).
#[must_use]
pub fn functions(wanted: &BTreeSet<&'static str>) -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    let note = |_: &[u8], name: &[u8]| {
        let name = std::str::from_utf8(name).ok();
        found.extend(name.and_then(|name| wanted.get(name)));
    };
    // What cannot be read names none.
    let _ = kallsyms().and_then(|kallsyms| each_symbol(kallsyms, note));
    found
}

/// Whether the kernel was built with kprobes that programs can attach to.
#[must_use]
pub fn has_kprobes() -> bool {
    Path::new("/sys/bus/event_source/devices/kprobe").exists()
}

/// Whether a filesystem is there: whether its module has a folder in `/sys/module`, or the kernel
/// was built without modules and with it.
#[must_use]
pub fn has_module(name: &str) -> bool {
    Path::new("/sys/module").join(name).exists() || (!has_modules() && has_filesystem(name))
}

/// Whether a filesystem is registered.
fn has_filesystem(name: &str) -> bool {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    known.split_whitespace().any(|word| word == name)
}

/// Whether the kernel was built with support for modules.
#[must_use]
pub fn has_modules() -> bool {
    Path::new("/proc/modules").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions_are_read() {
        assert_eq!(parse_release("6.12.107+deb13-amd64"), Some((6, 12)));
        assert_eq!(parse_release("5.10.0-46-amd64"), Some((5, 10)));
        assert_eq!(parse_release("7.2"), Some((7, 2)));
        assert_eq!(parse_release("linux"), None);
    }

    #[test]
    fn symbols_of_modules_and_hidden_addresses() {
        let text = b"ffffffff81a4a9b0 t btrfs_simple_end_io\t[btrfs]\n\
            ffffffffc0000010 t ext4_end_bio.cold\n\
            0000000000000000 T bio_chain_endio\n";
        let btrfs = (0xffff_ffff_81a4_a9b0, msync_trace_ebpf::OWNER_BTRFS);
        assert_eq!(find_symbols(&text[..]).unwrap(), [btrfs]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_pass_for_symbols(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let _ = find_symbols(&bytes[..]);
            let _ = parse_release(&String::from_utf8_lossy(&bytes));
        }
    }
}

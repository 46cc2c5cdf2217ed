//! What `/proc/PID/fdinfo` says of a descriptor.

/// The number behind a name at the beginning of a line.
pub(super) fn field(info: &str, name: &str) -> Option<u64> {
    let value = |line: &str| {
        line.strip_prefix(name)?
            .strip_prefix(':')?
            .trim()
            .parse()
            .ok()
    };
    info.lines().find_map(value)
}

//! Sizes, byte ranges and error names as people type them.

use std::ops::Range;

/// The errors that a device can give.
const ERRORS: [(&str, i32); 8] = [
    ("EIO", libc::EIO),
    ("ENOSPC", libc::ENOSPC),
    ("EDQUOT", libc::EDQUOT),
    ("EROFS", libc::EROFS),
    ("ENODEV", libc::ENODEV),
    ("ETIMEDOUT", libc::ETIMEDOUT),
    ("ENOLINK", libc::ENOLINK),
    ("EILSEQ", libc::EILSEQ),
];

/// `4096`, `64K`, `256M`, `1G`.
pub fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: Option<u64> = digits.parse().ok();
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| format!("{text:?} is no size; 4096, 64K, 256M and 1G are"))
}

/// `4096..8192`: the first byte, and the byte after the last one.
pub fn bytes(text: &str) -> Result<Range<u64>, String> {
    let (start, end) = text
        .split_once("..")
        .ok_or_else(|| format!("{text:?} is no range; 4096..8192 is"))?;
    let range = size(start)?..size(end)?;
    match range.is_empty() {
        true => Err(format!("{text:?} holds no byte")),
        false => Ok(range),
    }
}

/// `EIO`.
pub fn error(text: &str) -> Result<i32, String> {
    let found = ERRORS.iter().find(|(name, _)| *name == text);
    found.map(|(_, errno)| *errno).ok_or_else(|| {
        let known: Vec<&str> = ERRORS.iter().map(|(name, _)| *name).collect();
        format!("one of {}", known.join(", "))
    })
}

/// The other way round.
pub fn error_name(errno: i32) -> String {
    let found = ERRORS.iter().find(|(_, number)| *number == errno);
    found.map_or_else(|| errno.to_string(), |(name, _)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ranges_have_units() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("256M"), Ok(256 << 20));
        assert_eq!(bytes("4K..8192"), Ok(4096..8192));
        for wrong in ["", "K", "-1", "4096..", "8..8", "9..8", "99999999999G"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn errors_have_names() {
        assert_eq!(error("ENOSPC"), Ok(libc::ENOSPC));
        assert_eq!(error_name(libc::ENOSPC), "ENOSPC");
        assert!(error("ENONSENSE").unwrap_err().contains("EIO"));
    }
}

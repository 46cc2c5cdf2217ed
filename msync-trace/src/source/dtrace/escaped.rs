//! Strings as the `%S` of DTrace writes them. Any byte but NUL can be in a file name.

/// The bytes of a string, without the `\0` that `%S` appends. `None` if no `%S` writes such a text.
///
/// `%S` writes bytes that are not printable as three octal digits, on some systems of a signed
/// byte: `\703` stands for `\303`, so the lower eight bits count. Bytes above ASCII that come as
/// they are (a locale in which they can be printed) stand for themselves.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'\\' {
            if first < b' ' || first == 0x7f {
                return None;
            }
            bytes.push(first);
            continue;
        }
        if let Some(byte) = rest.first_chunk().and_then(octal) {
            // A NUL cannot be in the middle.
            if byte == 0 {
                return None;
            }
            bytes.push(byte);
            rest = &rest[3..];
            continue;
        }
        let (&letter, after) = rest.split_first()?;
        rest = after;
        bytes.push(match letter {
            b'0' if rest.is_empty() => break,
            b'a' => 0x07,
            b'b' => 0x08,
            b't' => b'\t',
            b'n' => b'\n',
            b'v' => 0x0b,
            b'f' => 0x0c,
            b'r' => b'\r',
            b'"' | b'\\' | b'\'' | b'?' => letter,
            _ => return None,
        });
    }
    Some(bytes)
}

fn octal(digits: &[u8; 3]) -> Option<u8> {
    let mut number = 0_u16;
    for digit in digits {
        if !matches!(digit, b'0'..=b'7') {
            return None;
        }
        number = number * 8 + u16::from(digit - b'0');
    }
    Some(number.to_le_bytes()[0])
}

/// What `%S` writes, for tests.
#[cfg(test)]
pub fn encode(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for byte in bytes {
        match byte {
            0x07 => text.extend(b"\\a"),
            0x08 => text.extend(b"\\b"),
            b'\t' => text.extend(b"\\t"),
            b'\n' => text.extend(b"\\n"),
            0x0b => text.extend(b"\\v"),
            0x0c => text.extend(b"\\f"),
            b'\r' => text.extend(b"\\r"),
            b'"' | b'\\' => text.extend([b'\\', *byte]),
            b' '..=b'~' => text.push(*byte),
            _ => text.extend(format!("\\{byte:03o}").bytes()),
        }
    }
    text.extend(b"\\0");
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_nul_at_the_end_is_dropped_and_one_elsewhere_is_refused() {
        assert_eq!(decode(br"/db/base\0").unwrap(), b"/db/base");
        assert_eq!(decode(b"/db/base").unwrap(), b"/db/base");
        assert_eq!(decode(br"\0").unwrap(), b"");
        assert_eq!(decode(b"").unwrap(), b"");
        assert_eq!(decode(br"a\0b"), None);
        assert_eq!(decode(br"a\000b"), None);
    }

    #[test]
    fn an_octal_number_of_a_signed_byte_is_that_byte() {
        assert_eq!(decode(br"caf\703\651\0").unwrap(), b"caf\xc3\xa9");
        assert_eq!(decode(br"caf\303\251\0").unwrap(), b"caf\xc3\xa9");
        // Digits of the name after one.
        assert_eq!(decode(br"\001234\0").unwrap(), b"\x01234");
    }

    #[test]
    fn what_no_dtrace_writes_is_refused() {
        for bad in [
            &br"\"[..],
            br"a\",
            br"\x41",
            br"\12",
            br"\1",
            b"a\tb",
            b"\x1b[31m",
            b"\x7f",
        ] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_name_comes_back(name in proptest::collection::vec(1..=u8::MAX, 0..60)) {
            prop_assert_eq!(decode(&encode(&name)), Some(name));
        }

        #[test]
        fn any_text_passes(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(&text);
        }
    }
}

//! Names made safe for a terminal and a line-based reader, without losing a byte.

use std::fmt::Write as _;

use crate::schema::is_unprintable;

/// A name as printable text on one line. Reversible:
///
/// | in the name | in the text |
/// |---|---|
/// | backslash | `\\` |
/// | newline | `\n` |
/// | any other byte of a character that [`is_unprintable`], or of what is no UTF-8 | `\x1b`: two hexadecimal digits |
/// | everything else | itself |
#[must_use]
pub fn escape(name: &[u8]) -> String {
    let mut out = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                c if is_unprintable(c) => hex(&mut out, c.encode_utf8(&mut [0; 4]).as_bytes()),
                c => out.push(c),
            }
        }
        hex(&mut out, chunk.invalid());
    }
    out
}

fn hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(out, "\\x{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a reader of our output would write to get the bytes back.
    fn unescape(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            if byte != b'\\' {
                out.push(byte);
                continue;
            }
            match bytes.next() {
                Some(b'\\') => out.push(b'\\'),
                Some(b'n') => out.push(b'\n'),
                Some(b'x') => {
                    let digits: String = bytes.by_ref().take(2).map(char::from).collect();
                    out.push(u8::from_str_radix(&digits, 16).unwrap());
                }
                other => panic!("unknown escape {other:?} in {text:?}"),
            }
        }
        out
    }

    #[test]
    fn a_file_name_cannot_move_the_cursor_or_start_a_line() {
        assert_eq!(escape(b"plain name"), "plain name");
        assert_eq!(escape(b"two\nlines"), "two\\nlines");
        assert_eq!(escape(b"\x1b[31mred"), "\\x1b[31mred");
        assert_eq!(escape(b"back\\slash"), "back\\\\slash");
        assert_eq!(escape(b"latin\xe9"), "latin\\xe9");
        // U+009B is an escape sequence to many terminals; U+202E turns the text around.
        assert_eq!(escape("\u{9b}2J".as_bytes()), "\\xc2\\x9b2J");
        assert_eq!(escape("\u{202e}gpj".as_bytes()), "\\xe2\\x80\\xaegpj");
        assert_eq!(escape("größe 数据".as_bytes()), "größe 数据");
    }

    proptest! {
        #[test]
        fn nothing_unprintable_survives_and_nothing_is_lost(
            name in proptest::collection::vec(any::<u8>(), 0..64)
        ) {
            let text = escape(&name);
            prop_assert!(!text.chars().any(is_unprintable), "{:?}", text);
            prop_assert_eq!(unescape(&text), name);
        }

        #[test]
        fn also_of_any_unicode_text(name in any::<String>()) {
            let text = escape(name.as_bytes());
            prop_assert!(!text.chars().any(is_unprintable), "{:?}", text);
            prop_assert_eq!(unescape(&text), name.into_bytes());
        }
    }
}

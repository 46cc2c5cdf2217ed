//! Names made safe for a terminal and a line-based reader, without losing a byte.

use std::fmt::{self, Write as _};

use super::is_unprintable;

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

/// The bytes of a name that [`escape`] spelled.
///
/// # Errors
/// If [`escape`] spells no name so.
pub fn unescape(text: &str) -> Result<Vec<u8>, BadEscape> {
    let mut out = Vec::with_capacity(text.len());
    let mut parts = text.split('\\');
    out.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    while let Some(part) = parts.next() {
        let rest = match part.as_bytes() {
            // Two backslashes have nothing between them.
            [] => {
                out.push(b'\\');
                parts.next().ok_or(BadEscape)?.as_bytes()
            }
            [b'n', rest @ ..] => {
                out.push(b'\n');
                rest
            }
            [b'x', high, low, rest @ ..] => {
                out.push(hex_digit(*high)? << 4 | hex_digit(*low)?);
                rest
            }
            _ => return Err(BadEscape),
        };
        out.extend_from_slice(rest);
    }
    Ok(out)
}

fn hex_digit(digit: u8) -> Result<u8, BadEscape> {
    let value = char::from(digit).to_digit(16).ok_or(BadEscape)?;
    u8::try_from(value).map_err(|_| BadEscape)
}

/// A text that is no spelling of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadEscape;

impl fmt::Display for BadEscape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a backslash is followed by neither a backslash nor n nor x and two digits")
    }
}

impl std::error::Error for BadEscape {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    #[test]
    fn what_is_no_spelling_is_refused() {
        for bad in ["\\", "\\q", "\\x", "\\x4", "\\xzz", "a\\\\\\"] {
            assert_eq!(unescape(bad), Err(BadEscape), "{bad}");
        }
        assert_eq!(unescape("a\\\\nb\\x0a"), Ok(b"a\\nb\n".to_vec()));
    }

    proptest! {
        #[test]
        fn nothing_unprintable_survives_and_nothing_is_lost(
            name in proptest::collection::vec(any::<u8>(), 0..64)
        ) {
            let text = escape(&name);
            prop_assert!(!text.chars().any(is_unprintable), "{:?}", text);
            prop_assert_eq!(unescape(&text), Ok(name));
        }

        #[test]
        fn also_of_any_unicode_text(name in any::<String>()) {
            let text = escape(name.as_bytes());
            prop_assert!(!text.chars().any(is_unprintable), "{:?}", text);
            prop_assert_eq!(unescape(&text), Ok(name.into_bytes()));
        }
    }
}

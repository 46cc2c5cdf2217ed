//! Names as the kernel has them: bytes, which JSON cannot say.
//!
//! A name that is UTF-8 is one JSON string. One that is not becomes two members: `path` with
//! U+FFFD in the place of what is no UTF-8 (to be read), and `path_bytes` with every byte, percent
//! encoded as in a URI (to be decoded: `urllib.parse.unquote_to_bytes` and the like).

use std::fmt::{self, Write as _};

use serde::{Deserialize, Deserializer, Serializer, de, ser::SerializeMap};

/// A file, process or cgroup name: any bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(pub Vec<u8>);

impl Name {
    /// For people: U+FFFD in the place of what is no UTF-8.
    #[must_use]
    pub fn lossy(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// Lossless, percent encoded; only for a name that is no UTF-8.
    #[must_use]
    pub fn percent(&self) -> Option<String> {
        if std::str::from_utf8(&self.0).is_ok() {
            return None;
        }
        let mut out = String::with_capacity(self.0.len() * 2);
        for byte in &self.0 {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                    out.push(char::from(*byte));
                }
                other => {
                    // Writing to a String cannot fail.
                    let _ = write!(out, "%{other:02X}");
                }
            }
        }
        Some(out)
    }

    fn from_members(text: String, bytes: Option<&str>) -> Result<Self, BadSpelling> {
        match bytes {
            None => Ok(Self(text.into_bytes())),
            Some(encoded) => percent_decode(encoded).map(Self),
        }
    }
}

impl From<&[u8]> for Name {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

/// A percent-encoded name that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadSpelling(String);

impl fmt::Display for BadSpelling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not percent encoded", self.0)
    }
}

impl std::error::Error for BadSpelling {}

fn percent_decode(encoded: &str) -> Result<Vec<u8>, BadSpelling> {
    let bad = || BadSpelling(encoded.to_owned());
    let mut out = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || {
            let value = char::from(bytes.next()?).to_digit(16)?;
            u8::try_from(value).ok()
        };
        let (high, low) = (digit().ok_or_else(bad)?, digit().ok_or_else(bad)?);
        out.push(high << 4 | low);
    }
    Ok(out)
}

/// One name as one or two members of the surrounding JSON object. `null` if it is not known.
fn serialize_members<S: Serializer>(
    name: Option<&Name>,
    keys: (&'static str, &'static str),
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let bytes = name.and_then(Name::percent);
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry(keys.0, &name.map(Name::lossy))?;
    if let Some(bytes) = bytes {
        map.serialize_entry(keys.1, &bytes)?;
    }
    map.end()
}

/// Modules for `#[serde(flatten, with = ...)]`: a name under its key.
macro_rules! name_members {
    ($($module:ident: $text:literal, $bytes:literal;)*) => {$(
        pub(super) mod $module {
            use super::*;

            #[derive(Deserialize)]
            struct Members {
                #[serde(rename = $text)]
                text: Option<String>,
                #[serde(rename = $bytes, default)]
                bytes: Option<String>,
            }

            pub fn serialize<N: AsName, S: Serializer>(
                name: &N,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                serialize_members(name.as_name().as_ref(), ($text, $bytes), serializer)
            }

            pub fn deserialize<'de, N: AsName, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<N, D::Error> {
                let members = Members::deserialize(deserializer)?;
                let name = members
                    .text
                    .map(|text| Name::from_members(text, members.bytes.as_deref()))
                    .transpose()
                    .map_err(de::Error::custom)?;
                N::of_name(name).ok_or_else(|| de::Error::missing_field($text))
            }
        }
    )*};
}

name_members! {
    path: "path", "path_bytes";
    path_when_failed: "path_when_failed", "path_when_failed_bytes";
    mount: "mount", "mount_bytes";
    comm: "comm", "comm_bytes";
    exe: "exe", "exe_bytes";
    cgroup: "cgroup", "cgroup_bytes";
    source: "source", "source_bytes";
}

/// The ways the model and the records hold a name.
pub(super) trait AsName: Sized {
    fn as_name(&self) -> Option<Name>;
    fn of_name(name: Option<Name>) -> Option<Self>;
}

impl AsName for Name {
    fn as_name(&self) -> Option<Name> {
        Some(self.clone())
    }
    fn of_name(name: Option<Name>) -> Option<Self> {
        name
    }
}

impl AsName for Option<Name> {
    fn as_name(&self) -> Option<Name> {
        self.clone()
    }
    fn of_name(name: Option<Name>) -> Option<Self> {
        Some(name)
    }
}

impl AsName for Vec<u8> {
    fn as_name(&self) -> Option<Name> {
        Some(Name(self.clone()))
    }
    fn of_name(name: Option<Name>) -> Option<Self> {
        name.map(|name| name.0)
    }
}

impl AsName for Option<Vec<u8>> {
    fn as_name(&self) -> Option<Name> {
        self.clone().map(Name)
    }
    fn of_name(name: Option<Name>) -> Option<Self> {
        Some(name.map(|name| name.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Serialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Holder {
        before: u64,
        #[serde(flatten, with = "path")]
        path: Option<Name>,
    }

    fn json(path: Option<&[u8]>) -> String {
        let holder = Holder {
            before: 1,
            path: path.map(Name::from),
        };
        serde_json::to_string(&holder).unwrap()
    }

    #[test]
    fn only_a_name_that_is_no_utf8_has_its_bytes() {
        assert_eq!(json(None), r#"{"before":1,"path":null}"#);
        assert_eq!(json(Some(b"/a b")), r#"{"before":1,"path":"/a b"}"#);
        assert_eq!(
            json(Some(b"/a b\xff%")),
            "{\"before\":1,\"path\":\"/a b\u{fffd}%\",\"path_bytes\":\"/a%20b%FF%25\"}"
        );
    }

    #[test]
    fn half_an_escape_is_refused() {
        for bad in ["%", "%4", "%zz", "a%+1"] {
            assert!(percent_decode(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40))) {
            let holder = Holder { before: 2, path: bytes.map(Name) };
            let json = serde_json::to_string(&holder).unwrap();
            prop_assert_eq!(serde_json::from_str::<Holder>(&json).unwrap(), holder);
        }
    }
}

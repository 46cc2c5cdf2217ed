//! One line of the protocol: bytes in, what it says out, or why it says nothing. What the numbers
//! mean is for `facts` to know. `docs/dtrace-protocol.md` describes the lines.

use std::fmt;

use super::escaped;

/// The first word of every line.
pub const WORD: &str = "mst1";
/// The longest line, bytes, without its newline.
pub const LONGEST: usize = 65_536;
/// More fields than this has no event by far.
const MOST_FIELDS: usize = 64;

/// Where lines were numbered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stream([u8; Self::LONGEST]);

impl Stream {
    const LONGEST: usize = 32;

    /// `None` if it is no name of a stream.
    pub fn new(name: &[u8]) -> Option<Self> {
        let fits = (1..=Self::LONGEST).contains(&name.len())
            && name
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        let mut bytes = [0; Self::LONGEST];
        fits.then(|| bytes[..name.len()].copy_from_slice(name));
        fits.then_some(Self(bytes))
    }

    /// Whether it is the one that is not numbered.
    pub fn is_none(self) -> bool {
        self == NO_STREAM
    }
}

/// `-`: of lines that are not numbered.
pub const NO_STREAM: Stream = {
    let mut bytes = [0; Stream::LONGEST];
    bytes[0] = b'-';
    Stream(bytes)
};

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.split(|b| *b == 0).next().unwrap_or_default();
        f.write_str(&String::from_utf8_lossy(name))
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({self})")
    }
}

/// A line that could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub stream: Stream,
    /// Its number within the stream.
    pub n: u64,
    /// ns on DTrace's `timestamp`.
    pub ts: u64,
    pub event: Event,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Start(Start),
    Tick,
    Lines { stream: Stream, count: u64 },
    Stop,
    About(File, What),
    Lost { cause: Cause, count: u64 },
}

/// Who prints, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub os: Vec<u8>,
    pub release: Vec<u8>,
    pub script: Vec<u8>,
    pub wall_ns: u64,
    pub window_ns: u64,
}

/// The file that a fact is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub fs: Vec<u8>,
    pub fsid: Fsid,
    pub ino: u64,
    pub generation: u64,
    pub subvolume: u64,
    pub dev: Vec<u8>,
    pub mount: Vec<u8>,
    pub path: Vec<u8>,
    pub below: bool,
    pub nlink: u64,
}

/// 16 or 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsid {
    Short(u64),
    Long(u128),
}

/// Bytes of a file as the line says them; `len` may be 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes {
    pub off: u64,
    pub len: u64,
}

/// A thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    pub pid: u32,
    pub tid: u32,
    pub uid: u32,
    pub comm: Vec<u8>,
    pub kernel: bool,
    pub began: u64,
}

/// What happened to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Failed {
        bytes: Bytes,
        errno: u32,
        state: State,
        submitted: u64,
        by: Who,
    },
    Wrote(Bytes),
    Dirty(Bytes),
    Cut(Bytes),
    Evicted(Bytes),
    Gone {
        deleted: bool,
    },
    Sync {
        call: Call,
        id: u64,
        bytes: Bytes,
        /// 0: success.
        errno: u32,
        file: u64,
        pending: bool,
        by: Who,
    },
    Told {
        file: u64,
        errno: u32,
        by: Who,
    },
    Opened {
        file: u64,
    },
}

/// What the kernel does with bytes that it could not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Lost,
    Pending,
}

/// Which call came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Msync,
    MsyncAsync,
    Fsync,
    Fdatasync,
}

/// Why the script could not see something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    ProbeError,
    MapFull,
    WalkLimit,
}

/// Why a line says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is none of the protocol's.
    Foreign,
    /// It is of another version.
    OtherVersion(String),
    /// The full stop at its end is missing.
    CutShort,
    /// An event that this version does not have.
    UnknownEvent(String),
    /// A field is missing.
    Missing(&'static str),
    /// A field is there twice.
    Twice(String),
    /// A field cannot be read.
    Unreadable(&'static str, String),
    /// It is no field: no `=`.
    NoField(String),
    /// There are too many fields.
    TooManyFields,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => write!(f, "no line of the protocol (does not begin with {WORD})"),
            Self::OtherVersion(word) => {
                write!(f, "of another version of the protocol: {word}, not {WORD}")
            }
            Self::CutShort => f.write_str("cut short: the full stop at its end is missing"),
            Self::UnknownEvent(event) => write!(f, "unknown event {event}"),
            Self::Missing(key) => write!(f, "{key} is missing"),
            Self::Twice(key) => write!(f, "{key} is there twice"),
            Self::Unreadable(key, value) => write!(f, "{key} cannot be read: {value}"),
            Self::NoField(field) => write!(f, "no field: {field}"),
            Self::TooManyFields => write!(f, "more than {MOST_FIELDS} fields"),
        }
    }
}

/// Reads a line, without its newline.
pub fn parse(line: &[u8]) -> Result<Line, Fault> {
    let mut words = line.split(|b| *b == b'\t');
    let word = words.next().unwrap_or_default();
    if word != WORD.as_bytes() {
        return Err(other_version(word).map_or(Fault::Foreign, Fault::OtherVersion));
    }
    let Some(words) = line
        .strip_suffix(b"\t.")
        .and_then(|line| line.get(WORD.len() + 1..))
    else {
        return Err(Fault::CutShort);
    };
    let mut words = words.split(|b| *b == b'\t');
    let mut head = |key| words.next().ok_or(Fault::Missing(key));
    let stream = head("stream")?;
    let stream = Stream::new(stream).ok_or_else(|| unreadable("stream", stream))?;
    let n = number("n", head("n")?)?;
    let ts = number("ts", head("ts")?)?;
    let event = head("event")?;
    let fields = Fields::new(words)?;
    Ok(Line {
        stream,
        n,
        ts,
        event: fields.event(event)?,
    })
}

/// `mst` and a number: this protocol, but another version of it.
fn other_version(word: &[u8]) -> Option<String> {
    let number = word.strip_prefix(b"mst")?;
    let fits = (1..=4).contains(&number.len()) && number.iter().all(u8::is_ascii_digit);
    fits.then(|| String::from_utf8_lossy(word).into_owned())
}

struct Fields<'a>(Vec<(&'a [u8], &'a [u8])>);

impl<'a> Fields<'a> {
    fn new(words: impl Iterator<Item = &'a [u8]>) -> Result<Self, Fault> {
        let mut fields: Vec<(&[u8], &[u8])> = Vec::with_capacity(24);
        for word in words {
            let equals = word.iter().position(|b| *b == b'=');
            let (key, value) = match equals {
                Some(at) if at > 0 => (&word[..at], &word[at + 1..]),
                _ => return Err(Fault::NoField(excerpt(word))),
            };
            if fields.iter().any(|(other, _)| *other == key) {
                return Err(Fault::Twice(excerpt(key)));
            }
            if fields.len() == MOST_FIELDS {
                return Err(Fault::TooManyFields);
            }
            fields.push((key, value));
        }
        Ok(Self(fields))
    }

    fn event(&self, event: &[u8]) -> Result<Event, Fault> {
        Ok(match event {
            b"start" => Event::Start(self.start()?),
            b"tick" => Event::Tick,
            b"stop" => Event::Stop,
            b"lines" => {
                let name = self.text("stream")?;
                Event::Lines {
                    stream: Stream::new(&name).ok_or_else(|| unreadable("stream", &name))?,
                    count: self.number("count")?,
                }
            }
            b"lost" => Event::Lost {
                cause: self.word(
                    "cause",
                    &[
                        ("probe_error", Cause::ProbeError),
                        ("map_full", Cause::MapFull),
                        ("walk_limit", Cause::WalkLimit),
                    ],
                )?,
                count: self.number("count")?,
            },
            _ => {
                let what = self.what(event)?;
                Event::About(self.file()?, what)
            }
        })
    }

    fn start(&self) -> Result<Start, Fault> {
        // Ranges are exact, so nothing here is counted in pages; still it must be a size of one.
        let page = self.number("page")?;
        if !page.is_power_of_two() {
            return Err(Fault::Unreadable("page", page.to_string()));
        }
        Ok(Start {
            os: self.text("os")?,
            release: self.text("release")?,
            script: self.text("script")?,
            wall_ns: self.number("wall_ns")?,
            window_ns: self.number("window_ns")?,
        })
    }

    fn what(&self, event: &[u8]) -> Result<What, Fault> {
        Ok(match event {
            b"failed" => What::Failed {
                bytes: self.bytes()?,
                errno: self.small("errno")?,
                state: self.word(
                    "state",
                    &[("lost", State::Lost), ("pending", State::Pending)],
                )?,
                submitted: self.number("submitted")?,
                by: self.who()?,
            },
            b"wrote" => What::Wrote(self.bytes()?),
            b"dirty" => What::Dirty(self.bytes()?),
            b"cut" => What::Cut(self.bytes()?),
            b"evicted" => What::Evicted(self.bytes()?),
            b"gone" => What::Gone {
                deleted: self.flag("deleted")?,
            },
            b"sync" => What::Sync {
                call: self.word(
                    "call",
                    &[
                        ("msync", Call::Msync),
                        ("msync_async", Call::MsyncAsync),
                        ("fsync", Call::Fsync),
                        ("fdatasync", Call::Fdatasync),
                    ],
                )?,
                id: self.number("id")?,
                bytes: self.bytes()?,
                errno: self.small("errno")?,
                file: self.number("file")?,
                pending: self.flag("pending")?,
                by: self.who()?,
            },
            b"told" => What::Told {
                file: self.number("file")?,
                errno: self.small("errno")?,
                by: self.who()?,
            },
            b"opened" => What::Opened {
                file: self.number("file")?,
            },
            other => return Err(Fault::UnknownEvent(excerpt(other))),
        })
    }

    fn file(&self) -> Result<File, Fault> {
        Ok(File {
            fs: self.text("fs")?,
            fsid: self.fsid()?,
            ino: self.number("ino")?,
            generation: self.number("gen")?,
            subvolume: match self.find("subvol") {
                Some(value) => number("subvol", value)?,
                None => 0,
            },
            dev: self.text("dev")?,
            mount: self.text("mnt")?,
            path: self.text("path")?,
            below: self.flag("below")?,
            nlink: self.number("nlink")?,
        })
    }

    fn who(&self) -> Result<Who, Fault> {
        Ok(Who {
            pid: self.small("pid")?,
            tid: self.small("tid")?,
            uid: self.small("uid")?,
            comm: self.text("comm")?,
            kernel: self.flag("kernel")?,
            began: self.number("began")?,
        })
    }

    /// A range whose first byte a file can have.
    fn bytes(&self) -> Result<Bytes, Fault> {
        let (off, len) = (self.number("off")?, self.number("len")?);
        if off > i64::MAX.unsigned_abs() {
            return Err(Fault::Unreadable("off", off.to_string()));
        }
        Ok(Bytes { off, len })
    }

    fn fsid(&self) -> Result<Fsid, Fault> {
        let value = self.get("fsid")?;
        let digits = std::str::from_utf8(value)
            .ok()
            .filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
        let fsid = digits.and_then(|digits| match digits.len() {
            16 => u64::from_str_radix(digits, 16).ok().map(Fsid::Short),
            32 => u128::from_str_radix(digits, 16).ok().map(Fsid::Long),
            _ => None,
        });
        fsid.ok_or_else(|| unreadable("fsid", value))
    }

    fn find(&self, key: &str) -> Option<&'a [u8]> {
        let field = self.0.iter().find(|(other, _)| *other == key.as_bytes());
        field.map(|(_, value)| *value)
    }

    fn get(&self, key: &'static str) -> Result<&'a [u8], Fault> {
        self.find(key).ok_or(Fault::Missing(key))
    }

    fn text(&self, key: &'static str) -> Result<Vec<u8>, Fault> {
        let value = self.get(key)?;
        escaped::decode(value).ok_or_else(|| unreadable(key, value))
    }

    fn word<T: Copy>(&self, key: &'static str, words: &[(&str, T)]) -> Result<T, Fault> {
        let value = self.text(key)?;
        let known = words.iter().find(|(word, _)| word.as_bytes() == value);
        known
            .map(|(_, meaning)| *meaning)
            .ok_or_else(|| unreadable(key, &value))
    }

    fn number(&self, key: &'static str) -> Result<u64, Fault> {
        number(key, self.get(key)?)
    }

    fn small(&self, key: &'static str) -> Result<u32, Fault> {
        let value = self.get(key)?;
        u32::try_from(number(key, value)?).map_err(|_| unreadable(key, value))
    }

    fn flag(&self, key: &'static str) -> Result<bool, Fault> {
        match self.get(key)? {
            b"0" => Ok(false),
            b"1" => Ok(true),
            other => Err(unreadable(key, other)),
        }
    }
}

/// Decimal, without a sign.
fn number(key: &'static str, value: &[u8]) -> Result<u64, Fault> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value)
        .ok()
        .filter(|_| digits)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| unreadable(key, value))
}

fn unreadable(key: &'static str, value: &[u8]) -> Fault {
    Fault::Unreadable(key, excerpt(value))
}

/// The beginning of what a line holds, safe to be shown.
pub fn excerpt(bytes: &[u8]) -> String {
    const SHOWN: usize = 40;
    let shown = &bytes[..bytes.len().min(SHOWN)];
    let more = if bytes.len() > SHOWN { " ..." } else { "" };
    format!("\"{}\"{more}", shown.escape_ascii())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "fs=ufs\\0\tfsid=0123456789abcdef\tino=4\tgen=9\tdev=da0p2\\0\tmnt=/mnt\\0\t\
                        path=db/base\\0\tbelow=1\tnlink=1";

    fn line(event: &str) -> Result<Line, Fault> {
        parse(format!("mst1\t0\t7\t1000\t{event}\t.").as_bytes())
    }

    #[test]
    fn a_line_is_taken_apart() {
        let read = line(&format!("cut\toff=4096\tlen=8192\t{FILE}\tnew_in_1_2=x")).unwrap();
        assert_eq!((read.n, read.ts), (7, 1000));
        assert_eq!(read.stream.to_string(), "0");
        let Event::About(file, What::Cut(bytes)) = read.event else {
            panic!("{:?}", read.event);
        };
        assert_eq!((bytes.off, bytes.len), (4096, 8192));
        assert_eq!(file.fsid, Fsid::Short(0x0123_4567_89ab_cdef));
        assert_eq!((file.path, file.below), (b"db/base".to_vec(), true));
        assert_eq!(file.subvolume, 0);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, said) in [
            (
                "hello",
                "no line of the protocol (does not begin with mst1)",
            ),
            (
                "mst2\t0\t1\t1\ttick\t.",
                "of another version of the protocol: mst2, not mst1",
            ),
            ("mst1", "cut short: the full stop at its end is missing"),
            (
                "mst1\t0\t1\t1\ttick",
                "cut short: the full stop at its end is missing",
            ),
            ("mst1\t.", "cut short: the full stop at its end is missing"),
            ("mst1\t0\t.", "n is missing"),
            ("mst1\t0\t1\t1\t.", "event is missing"),
            ("mst1\t0\t-1\t1\ttick\t.", "n cannot be read: \"-1\""),
            (
                "mst1\t0\t18446744073709551616\t1\ttick\t.",
                "n cannot be read: \"18446744073709551616\"",
            ),
            ("mst1\ta b\t1\t1\ttick\t.", "stream cannot be read: \"a b\""),
            ("mst1\t0\t1\t1\tfrob\t.", "unknown event \"frob\""),
            ("mst1\t0\t1\t1\ttick\tx\t.", "no field: \"x\""),
            ("mst1\t0\t1\t1\ttick\ta=1\ta=1\t.", "\"a\" is there twice"),
            ("mst1\t0\t1\t1\tlost\tcount=1\t.", "cause is missing"),
            (
                "mst1\t0\t1\t1\tlost\tcount=1\tcause=bad luck\\0\t.",
                "cause cannot be read: \"bad luck\"",
            ),
            (
                "mst1\t0\t1\t1\tlines\tcount=1\tstream=a\\tb\t.",
                "stream cannot be read: \"a\\tb\"",
            ),
        ] {
            assert_eq!(
                parse(text.as_bytes()).unwrap_err().to_string(),
                said,
                "{text}"
            );
        }
        for (key, value) in [
            ("below", "2"),
            ("ino", ""),
            ("fsid", "12"),
            ("path", "\\x"),
            ("fsid", "+123456789abcdef"),
        ] {
            let fields: Vec<String> = FILE
                .split('\t')
                .map(|field| match field.split_once('=') {
                    Some((name, _)) if name == key => format!("{key}={value}"),
                    _ => field.to_owned(),
                })
                .collect();
            let fault = line(&format!("gone\tdeleted=0\t{}", fields.join("\t"))).unwrap_err();
            assert!(
                matches!(fault, Fault::Unreadable(name, _) if name == key),
                "{fault}"
            );
        }
    }

    #[test]
    fn a_fault_cannot_move_the_cursor() {
        let fault = parse(b"mst1\t0\t1\t1\t\x1b[31m\xff\t.").unwrap_err();
        assert_eq!(fault.to_string(), "unknown event \"\\x1b[31m\\xff\"");
        assert_eq!(excerpt(&[b'x'; 50]).len(), 40 + "\"\" ...".len());
    }

    proptest! {
        #[test]
        fn any_bytes_pass(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            event in "(failed|sync|start|lines|lost|gone)",
            fields in "([a-z]{2,6}=[0-9a-z\\\\]{0,18}\t){0,12}",
        ) {
            let _ = parse(&bytes);
            let _ = parse(format!("mst1\t0\t1\t1\t{event}\t{fields}.").as_bytes());
        }
    }
}

//! The D scripts, and what they need on this system.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// From this `kern.osreldate` on the script for FreeBSD is right as it stands.
const EXTENDED_ERRORS: u32 = 1_501_000;

/// The script for this system; `None` where there is none.
pub(super) fn of_this_system() -> Option<String> {
    if cfg!(target_os = "freebsd") {
        let script = include_str!("../../../../dtrace/freebsd/msync-trace.d");
        Some(adapt(script, osreldate()))
    } else if cfg!(target_os = "linux") {
        Some(include_str!("../../../../dtrace/linux/msync-trace.d").to_owned())
    } else {
        None
    }
}

/// Puts in the two names that FreeBSD had before 15.1; `dtrace/freebsd/msync-trace` does the same.
fn adapt(script: &str, osreldate: u32) -> String {
    if osreldate >= EXTENDED_ERRORS {
        return script.to_owned();
    }
    script
        .replace("b_exterr.error /* b_error */", "b_error")
        .replace("0x1000 /* BIO_ERROR */", "0x01 /* BIO_ERROR */")
}

#[cfg(target_os = "freebsd")]
fn osreldate() -> u32 {
    let mut number: libc::c_int = 0;
    let mut size = size_of::<libc::c_int>();
    // SAFETY: the name ends in NUL, and `size` is the room in `number`.
    let failed = unsafe {
        libc::sysctlbyname(
            c"kern.osreldate".as_ptr(),
            (&raw mut number).cast(),
            &raw mut size,
            std::ptr::null(),
            0,
        )
    };
    match failed {
        0 => u32::try_from(number).unwrap_or(EXTENDED_ERRORS),
        _ => EXTENDED_ERRORS,
    }
}

/// Every other system takes the script as it stands.
#[cfg(not(target_os = "freebsd"))]
fn osreldate() -> u32 {
    EXTENDED_ERRORS
}

/// A script in a file that only we can read, and that goes away with this. (A file and not standard
/// input: dtrace names it where it does not compile.)
#[derive(Debug)]
pub(super) struct ScriptFile(PathBuf);

impl ScriptFile {
    pub(super) fn write(script: &str) -> io::Result<Self> {
        let folder = std::env::temp_dir();
        let pid = std::process::id();
        for attempt in 0..100 {
            let path = folder.join(format!("msync-trace-{pid}-{attempt}.d"));
            // Never follows a link, never takes what is there.
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path);
            match file {
                Ok(mut file) => {
                    let script_file = Self(path);
                    file.write_all(script.as_bytes())?;
                    return Ok(script_file);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ScriptFile {
    fn drop(&mut self) {
        // Nothing to be done if somebody else took it away.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREEBSD: &str = include_str!("../../../../dtrace/freebsd/msync-trace.d");

    /// FreeBSD 13 and 14 have neither the name nor the bit of 15.1.
    #[test]
    fn before_15_1_the_script_has_the_names_of_that_time() {
        let old = adapt(FREEBSD, 1_402_000);
        assert!(!old.contains("b_exterr"));
        assert!(!old.contains("0x1000 /* BIO_ERROR */"));
        assert!(old.contains("b_error") && old.contains("0x01 /* BIO_ERROR */"));
        assert_eq!(adapt(FREEBSD, 1_501_000), FREEBSD);
        assert!(FREEBSD.contains("b_exterr.error /* b_error */"));
    }

    #[test]
    fn the_file_is_ours_alone_and_goes_away() {
        use std::os::unix::fs::MetadataExt;

        let file = ScriptFile::write("BEGIN { exit(0) }").unwrap();
        let other = ScriptFile::write("").unwrap();
        let path = file.path().to_owned();
        assert_ne!(path, other.path());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&path).unwrap(), "BEGIN { exit(0) }");
        drop(file);
        assert!(!path.exists());
    }
}

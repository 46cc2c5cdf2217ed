//! Encrypted directories (fscrypt), by ioctl: no tools of user space are needed.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::Result;

use super::world::Skip;

/// `FS_IOC_ADD_ENCRYPTION_KEY` and `FS_IOC_SET_ENCRYPTION_POLICY` (include/uapi/linux/fscrypt.h).
const ADD_KEY: libc::Ioctl = 0xC050_6617_u32 as libc::Ioctl;
const SET_POLICY: libc::Ioctl = 0x800C_6613_u32 as libc::Ioctl;
/// `FSCRYPT_KEY_SPEC_TYPE_IDENTIFIER`.
const BY_IDENTIFIER: u32 = 2;
const KEY_BYTES: usize = 64;

/// `struct fscrypt_add_key_arg` with its key.
#[repr(C)]
struct AddKey {
    kind: u32,
    reserved: u32,
    identifier: [u8; 16],
    rest: [u8; 16],
    raw_size: u32,
    key_id: u32,
    more: [u32; 8],
    raw: [u8; KEY_BYTES],
}

/// `struct fscrypt_policy_v2`.
#[repr(C)]
struct Policy {
    version: u8,
    /// `FSCRYPT_MODE_AES_256_XTS`.
    contents: u8,
    /// `FSCRYPT_MODE_AES_256_CTS`.
    names: u8,
    flags: u8,
    reserved: [u8; 4],
    identifier: [u8; 16],
}

/// Gives the key to the file system mounted there, as after every mount; gives its identifier.
pub fn add_key(mounted: &Path) -> Result<[u8; 16]> {
    let root = File::open(mounted)?;
    let mut key = AddKey {
        kind: BY_IDENTIFIER,
        reserved: 0,
        identifier: [0; 16],
        rest: [0; 16],
        raw_size: KEY_BYTES as u32,
        key_id: 0,
        more: [0; 8],
        raw: std::array::from_fn(|at| at as u8),
    };
    // SAFETY: the struct has the layout that the call wants, the key behind it included.
    match unsafe { libc::ioctl(root.as_raw_fd(), ADD_KEY, &raw mut key) } {
        0 => Ok(key.identifier),
        _ => Err(not_here("FS_IOC_ADD_ENCRYPTION_KEY")),
    }
}

/// Everything made in this empty directory from now on is encrypted.
pub fn encrypt(directory: &Path, identifier: [u8; 16]) -> Result<()> {
    let directory = File::open(directory)?;
    let policy = Policy {
        version: 2,
        contents: 1,
        names: 4,
        flags: 3,
        reserved: [0; 4],
        identifier,
    };
    // SAFETY: the struct has the layout that the call wants for this version.
    match unsafe { libc::ioctl(directory.as_raw_fd(), SET_POLICY, &raw const policy) } {
        0 => Ok(()),
        _ => Err(not_here("FS_IOC_SET_ENCRYPTION_POLICY")),
    }
}

/// The kernel may have been built without it, or lack an algorithm.
fn not_here(call: &str) -> anyhow::Error {
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOTTY | libc::EOPNOTSUPP | libc::ENOPKG) => {
            Skip(format!("this kernel cannot encrypt files ({error})")).into()
        }
        _ => anyhow::Error::new(error).context(call.to_owned()),
    }
}

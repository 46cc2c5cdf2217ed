//! Disk quotas, by quotactl(2): no tools of user space are needed.

use std::io;
use std::path::Path;

use anyhow::{Context, Result};

use super::volume::c_string;

/// `QFMT_VFS_V1` (include/uapi/linux/quota.h): what ext4's feature `quota` keeps.
const FORMAT: libc::c_int = 4;

/// This user has used all the blocks that he may use on the file system of this device. Blocks have
/// to be counted there (mkfs.ext4 -O quota).
pub fn use_up(device: &Path, user: u32) -> Result<()> {
    let user = i32::try_from(user)?;
    control(libc::Q_QUOTAON, device, FORMAT, std::ptr::null_mut()).context("turn quotas on")?;
    // SAFETY: all fields are integers.
    let mut limits: libc::dqblk = unsafe { std::mem::zeroed() };
    control(libc::Q_GETQUOTA, device, user, (&raw mut limits).cast()).context("read a quota")?;
    limits.dqb_bhardlimit = (limits.dqb_curspace / 1024).max(1);
    limits.dqb_valid = libc::QIF_BLIMITS;
    control(libc::Q_SETQUOTA, device, user, (&raw mut limits).cast()).context("set a quota")
}

fn control(command: i32, device: &Path, id: i32, place: *mut libc::c_char) -> io::Result<()> {
    let device = c_string(device).map_err(io::Error::other)?;
    let command = libc::QCMD(command, libc::USRQUOTA);
    // SAFETY: the device is a C string; place is null or a dqblk, as the command wants it.
    match unsafe { libc::quotactl(command, device.as_ptr(), id, place) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

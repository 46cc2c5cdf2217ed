//! The command that is traced until it ends.

use std::{
    env,
    ffi::{CString, OsStr, OsString},
    io,
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
};

use anyhow::Context;
use tokio::process::{Child, Command};

use crate::{output::escape, schema::CommandEnd};

/// Starts the command: as the user who called sudo, if someone did, and as ourselves otherwise.
///
/// # Errors
/// If it cannot be started.
pub(super) fn spawn(command: &[OsString]) -> anyhow::Result<Child> {
    let (program, arguments) = command.split_first().context("no command to run")?;
    let mut builder = Command::new(program);
    builder.args(arguments);
    if let Some(caller) = Caller::behind_sudo() {
        caller.run_as(&mut builder);
    }
    builder.spawn().with_context(|| {
        use std::os::unix::ffi::OsStrExt;
        format!("cannot run {}", escape(program.as_bytes()))
    })
}

/// How it ended.
pub(super) fn end(status: ExitStatus) -> CommandEnd {
    CommandEnd {
        status: status.code(),
        signal: status.signal(),
    }
}

/// The user behind sudo.
struct Caller {
    uid: libc::uid_t,
    gid: libc::gid_t,
    groups: Vec<libc::gid_t>,
    name: Option<OsString>,
}

impl Caller {
    fn behind_sudo() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let number = |key| env::var(key).ok()?.parse().ok();
        let (uid, gid) = (number("SUDO_UID")?, number("SUDO_GID")?);
        let name = env::var_os("SUDO_USER");
        Some(Self {
            uid,
            gid,
            groups: groups_of(name.as_deref(), gid),
            name,
        })
    }

    fn run_as(self, command: &mut Command) {
        if let Some(name) = &self.name {
            command.env("USER", name).env("LOGNAME", name);
        }
        if let Some(home) = env::var_os("SUDO_HOME") {
            command.env("HOME", home);
        }
        let Self {
            uid, gid, groups, ..
        } = self;
        // The C libraries do not agree on the type; there are at most 1024.
        let count = groups.len() as _;
        // std's uid() would drop all groups of the user; so all three are set here, in the only
        // order that works.
        let become_caller = move || {
            // SAFETY: system calls on plain numbers and on a vector that outlives them.
            let ok = unsafe {
                libc::setgroups(count, groups.as_ptr()) == 0
                    && libc::setgid(gid) == 0
                    && libc::setuid(uid) == 0
            };
            if ok {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        };
        // SAFETY: between fork and exec, the closure only makes system calls; it allocates
        // nothing.
        unsafe { command.pre_exec(become_caller) };
    }
}

/// All groups of a user; only the main one where they cannot be had.
fn groups_of(name: Option<&OsStr>, gid: libc::gid_t) -> Vec<libc::gid_t> {
    use std::os::unix::ffi::OsStrExt;

    let Some(name) = name.and_then(|name| CString::new(name.as_bytes()).ok()) else {
        return vec![gid];
    };
    let mut groups = vec![gid; 1024];
    let mut count = 1024;
    // SAFETY: the name ends in NUL, and `count` is the room in `groups`.
    let found = unsafe {
        libc::getgrouplist(
            name.as_ptr(),
            gid,
            groups.as_mut_ptr().cast(),
            &raw mut count,
        )
    };
    match usize::try_from(count) {
        Ok(count) if found >= 0 => groups.truncate(count),
        _ => groups.truncate(1),
    }
    groups
}

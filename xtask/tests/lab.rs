//! `cargo xtask lab serve` with a real block device.

#![cfg(target_os = "linux")]

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

/// Ended by SIGTERM when dropped, and waited for.
struct Lab {
    child: Child,
    device: PathBuf,
    socket: PathBuf,
}

impl Lab {
    fn serve(socket: &Path) -> Lab {
        let mut child = Command::new(XTASK)
            .args(["lab", "serve", "--size", "16M", "--socket"])
            .arg(socket)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let (device, socket) = (line.trim().into(), socket.to_owned());
        Lab {
            child,
            device,
            socket,
        }
    }

    fn ctl(&self, command: &str) -> String {
        let output = Command::new(XTASK)
            .args(["lab", "ctl", "--socket"])
            .arg(&self.socket)
            .args(command.split(' '))
            .output()
            .unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Writes one block to the device, not just to its cache.
    fn write(&self, offset: u64) -> io::Result<()> {
        let device = OpenOptions::new().write(true).open(&self.device)?;
        device.write_all_at(&[7; 4096], offset)?;
        device.sync_data()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // SAFETY: kill takes no pointer; the child is ours and not yet waited for.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let _ = self.child.wait();
    }
}

/// Whether a loop device has a file behind it.
fn attached(device: &Path) -> bool {
    let name = device.file_name().unwrap();
    Path::new("/sys/block").join(name).join("loop").exists()
}

#[test]
fn a_device_fails_and_heals_on_command_and_leaves_nothing_behind() {
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        println!("SKIPPED lab: a loop device takes root");
        return;
    }
    if File::open("/dev/fuse").is_err() || File::open("/dev/loop-control").is_err() {
        println!("SKIPPED lab: no /dev/fuse or no /dev/loop-control");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::serve(&folder.path().join("lab.sock"));
    assert!(attached(&lab.device), "{}", lab.device.display());
    lab.write(8192).unwrap();

    lab.ctl("fail --error EIO --range 8192..12288");
    lab.write(0).unwrap();
    assert_eq!(lab.write(8192).unwrap_err().raw_os_error(), Some(libc::EIO));
    let status = lab.ctl("status");
    assert!(status.contains("1 matched, 1 applied"), "{status}");
    lab.ctl("heal");
    lab.write(8192).unwrap();

    lab.ctl("fail --error EIO --nth 2");
    lab.write(0).unwrap();
    lab.write(0).unwrap_err();
    lab.write(0).unwrap();
    lab.ctl("heal");

    lab.ctl("delay --ms 60");
    let begin = Instant::now();
    lab.write(0).unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(60));

    let (device, socket) = (lab.device.clone(), lab.socket.clone());
    drop(lab);
    assert!(!socket.exists());
    let deadline = Instant::now() + Duration::from_secs(10);
    while attached(&device) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!attached(&device), "{} is still there", device.display());
}

//! Whether a file is written where only its owner can put something else in its place.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use thiserror::Error;

/// Why a file is not written there: a sentence with the remedy.
#[derive(Debug, Error)]
pub enum Untrusted {
    /// Others can put files there, or take them away.
    #[error(
        "{} is not written: others can write to {}, which is on its way; chmod go-w {}, or \
         choose another folder",
        file.display(), place.display(), place.display()
    )]
    Writable {
        /// What was to be written.
        file: PathBuf,
        /// The folder, or the file itself.
        place: PathBuf,
    },
    /// Others can put files beside it, where this user's own files are safe: the sticky bit.
    #[error(
        "{} is not written: others can put files into {}; make a folder for it there: \
         mkdir -m 700 {}",
        file.display(), place.display(), place.join("msync-trace").display()
    )]
    Shared {
        /// What was to be written.
        file: PathBuf,
        /// The folder.
        place: PathBuf,
    },
    /// It belongs to another user.
    #[error(
        "{} is not written: {}, which is on its way, belongs to user {owner}; chown it to the user \
         that traces, or choose another folder",
        file.display(), place.display()
    )]
    Owner {
        /// What was to be written.
        file: PathBuf,
        /// The folder, or the file itself.
        place: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// It cannot be looked at.
    #[error("{} is not written: {} cannot be looked at: {error}", file.display(), place.display())]
    Unknown {
        /// What was to be written.
        file: PathBuf,
        /// The folder.
        place: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Whether `file`, which need not be there yet, is the owner's alone: each folder on the way to it (as
/// symbolic links lead) belongs to root or to this user, and nobody else can write to it. A folder with
/// the sticky bit, as `/tmp` has it, lets nobody rename what is another's: it passes on the way, but not as
/// the folder of the file itself. SQLite takes for its own what lies there as `FILE-journal` or `FILE-wal`,
/// whoever has put it there.
///
/// # Errors
/// [`Untrusted`], for the first folder that is not.
pub fn is_own_place(file: &Path) -> Result<(), Untrusted> {
    let own = rustix::process::geteuid().as_raw();
    let unknown = |place: &Path, error| Untrusted::Unknown {
        file: file.to_owned(),
        place: place.to_owned(),
        error,
    };
    let absolute = std::path::absolute(file).map_err(|error| unknown(file, error))?;
    let folder = absolute.parent().unwrap_or(Path::new("/"));
    let real = fs::canonicalize(folder).map_err(|error| unknown(folder, error))?;
    // The way as it is written matters as well: who can replace a link decides where it leads.
    let mut ways: Vec<&Path> = folder.ancestors().chain(real.ancestors()).collect();
    ways.reverse();
    ways.dedup();
    for place in ways {
        let link = fs::symlink_metadata(place).map_err(|error| unknown(place, error))?;
        judge(file, place, &link, own)?;
        if place == real && link.mode() & 0o022 != 0 {
            return Err(Untrusted::Shared {
                file: file.to_owned(),
                place: place.to_owned(),
            });
        }
    }
    match fs::symlink_metadata(&absolute) {
        Ok(there) if there.is_symlink() => {
            judge(file, &absolute, &there, own)?;
            match fs::canonicalize(&absolute) {
                Ok(target) => is_own_place(&target),
                Err(error) => Err(unknown(&absolute, error)),
            }
        }
        Ok(there) => judge(file, &absolute, &there, own),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(unknown(&absolute, error)),
    }
}

fn judge(file: &Path, place: &Path, what: &fs::Metadata, own: u32) -> Result<(), Untrusted> {
    let owner = what.uid();
    if owner != 0 && owner != own {
        return Err(Untrusted::Owner {
            file: file.to_owned(),
            place: place.to_owned(),
            owner,
        });
    }
    // The mode of a link means nothing.
    let sticky = what.is_dir() && what.mode() & 0o1000 != 0;
    if !what.is_symlink() && !sticky && what.mode() & 0o022 != 0 {
        return Err(Untrusted::Writable {
            file: file.to_owned(),
            place: place.to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn refusal(file: &Path) -> String {
        is_own_place(file).unwrap_err().to_string()
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_named_with_the_remedy() {
        let top = tempfile::tempdir().unwrap();
        let folder = top.path().join("shared");
        let inner = folder.join("own");
        fs::create_dir_all(&inner).unwrap();
        let file = inner.join("run.db");
        mode(&folder, 0o755);
        assert!(is_own_place(&file).is_ok());
        for open in [0o777, 0o775, 0o757] {
            mode(&folder, open);
            let said = refusal(&file);
            assert!(
                said.contains(&format!("chmod go-w {}", folder.display())),
                "{said}"
            );
        }
        mode(&folder, 0o1777);
        assert!(is_own_place(&file).is_ok(), "sticky");
        mode(&inner, 0o1777);
        let said = refusal(&file);
        assert!(
            said.contains(&format!("mkdir -m 700 {}/msync-trace", inner.display())),
            "{said}"
        );
    }

    #[test]
    fn a_file_that_others_can_write_to_is_refused() {
        let top = tempfile::tempdir().unwrap();
        let file = top.path().join("run.db");
        fs::write(&file, "").unwrap();
        mode(&file, 0o644);
        assert!(is_own_place(&file).is_ok());
        mode(&file, 0o666);
        assert!(refusal(&file).contains("go-w"));
    }

    #[test]
    fn a_link_leads_where_it_leads() {
        let top = tempfile::tempdir().unwrap();
        let (open, link) = (top.path().join("open"), top.path().join("link"));
        fs::create_dir(&open).unwrap();
        mode(&open, 0o777);
        symlink(&open, &link).unwrap();
        let said = refusal(&link.join("run.db"));
        assert!(said.contains("others can write to"), "{said}");
        fs::write(open.join("there"), "").unwrap();
        symlink(open.join("there"), top.path().join("run.db")).unwrap();
        assert!(is_own_place(&top.path().join("run.db")).is_err());
    }

    #[test]
    fn what_belongs_to_somebody_else_is_refused() {
        let top = tempfile::tempdir().unwrap();
        if std::os::unix::fs::chown(top.path(), Some(12_345), None).is_err() {
            println!("SKIPPED: only root can give files away");
            return;
        }
        let said = refusal(&top.path().join("run.db"));
        assert!(said.contains("belongs to user 12345"), "{said}");
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let said = refusal(Path::new("/nonexistent/run.db"));
        assert!(said.contains("/nonexistent cannot be looked at"), "{said}");
    }
}

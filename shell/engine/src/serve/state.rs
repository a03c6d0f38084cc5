//! What an engine keeps of namespaces that have no pool to keep it: their reservations, a file
//! each in its state directory.
//!
//! Invariants:
//! 1. A file is replaced whole, durably, or not at all; whoever asked is told only then.
//! 2. A namespace whose file cannot be read or makes no sense is not served.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use braid_nvme::target::reservation::Reservations;
use braid_reactor::{Arena, Remote};
use rustix::fs::Access;
use rustix::process::geteuid;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::serve::server::Control;

/// The state directory.
#[derive(Debug)]
pub struct State {
    folder: PathBuf,
}

/// Reservations that a shard asks to be kept.
#[derive(Debug)]
pub struct Keep {
    /// The shard.
    pub shard: u16,
    /// What it calls this.
    pub tag: u64,
    /// Of which namespace.
    pub namespace: [u8; 16],
    /// The record.
    pub record: Box<[u8]>,
}

/// Where the state directory is unless `--state-dir` says otherwise: where systemd made it for the
/// service, that of the system, or that of the user.
fn default_folder() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    // Of several, separated by colons, the first.
    let service = variable("STATE_DIRECTORY").and_then(|value| value.into_string().ok());
    if let Some(first) = service.as_deref().and_then(|value| value.split(':').next()) {
        return first.into();
    }
    let of_user = || {
        let home = || Some(PathBuf::from(variable("HOME")?).join(".local/state"));
        variable("XDG_STATE_HOME").map(PathBuf::from).or_else(home)
    };
    match of_user() {
        Some(folder) if !geteuid().is_root() => folder.join("braid"),
        _ => "/var/lib/braid".into(),
    }
}

impl State {
    /// Makes the directory, if it is not there. Without one that was asked for by name an engine
    /// serves all the same, and reservations do not persist.
    ///
    /// # Errors
    /// When one that was asked for cannot be used.
    pub fn open(asked: Option<&Path>) -> Result<Option<Self>> {
        let folder = asked.map_or_else(default_folder, Path::to_path_buf);
        match prepare(&folder) {
            Ok(()) => Ok(Some(Self { folder })),
            Err(error) if asked.is_some() => Err(Error::usage(format!(
                "cannot write to the state directory {}: {error}; choose another --state-dir",
                folder.display()
            ))),
            Err(error) => {
                tracing::warn!(
                    folder = %folder.display(), %error,
                    "no state directory: reservations of files and devices do not persist"
                );
                Ok(None)
            }
        }
    }

    /// The reservations of a namespace, as they were kept; none if nothing was.
    ///
    /// # Errors
    /// When they cannot be read, or make no sense.
    pub fn reservations(&self, namespace: &[u8; 16]) -> Result<Reservations> {
        let path = self.path(namespace);
        let record = match std::fs::read(&path) {
            Ok(record) => record,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Reservations::new(true));
            }
            Err(error) => {
                return Err(Error::run(format!("cannot read {}: {error}", path.display())));
            }
        };
        Reservations::from_record::<Arena>(&record, namespace).map_err(|_| {
            Error::run(format!(
                "{} is damaged, so who may write is not known; remove it if no host relies on a \
                 reservation",
                path.display()
            ))
        })
    }

    /// Keeps a record, durably.
    fn keep(&self, namespace: &[u8; 16], record: &[u8]) -> io::Result<()> {
        let path = self.path(namespace);
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(record)?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        File::open(&self.folder)?.sync_all()
    }

    fn path(&self, namespace: &[u8; 16]) -> PathBuf {
        self.folder.join(format!("{}.reservations", Uuid::from_bytes(*namespace)))
    }
}

/// Makes a folder that only its owner may look into, durably.
fn prepare(folder: &Path) -> io::Result<()> {
    if !folder.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
    }
    rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)?;
    Ok(())
}

/// Keeps what the shards ask for, and tells them; it never makes one of them wait.
pub async fn serve(
    state: Arc<State>,
    mut asked: mpsc::UnboundedReceiver<Keep>,
    remotes: Vec<Remote<Control>>,
) {
    while let Some(Keep { shard, tag, namespace, record }) = asked.recv().await {
        let (state, remote) = (Arc::clone(&state), remotes.get(usize::from(shard)).cloned());
        tokio::task::spawn_blocking(move || {
            let kept = state.keep(&namespace, &record);
            if let Err(error) = &kept {
                let uuid = Uuid::from_bytes(namespace);
                tracing::error!(%uuid, %error, "reservations could not be kept");
            }
            if let Some(remote) = remote {
                // A shard that has ended answers nobody any more.
                let _ = remote.post(Control::Kept { tag, kept: kept.is_ok() });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use braid_nvme::target::reservation::{Keys, Register, ReservationCommand};

    use super::*;

    const UUID: [u8; 16] = [7; 16];

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("braid-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn registered() -> Reservations {
        let mut state = Reservations::new(true);
        let register = ReservationCommand::Register {
            action: Register::Register,
            ignore_key: false,
            persists: Some(true),
        };
        state.apply(&[1; 16], register, Keys { current: 0, other: 5 }).unwrap();
        state
    }

    #[test]
    fn what_was_kept_last_is_found_again() {
        let folder = Folder::new("state-kept");
        let state = State::open(Some(&folder.0.join("a/b"))).unwrap().unwrap();
        assert_eq!(state.reservations(&UUID).unwrap(), Reservations::new(true));
        for kept in [registered(), Reservations::new(true), registered()] {
            state.keep(&UUID, &kept.to_record::<Arena>(&UUID)).unwrap();
            let again = State::open(Some(&folder.0.join("a/b"))).unwrap().unwrap();
            assert_eq!(again.reservations(&UUID).unwrap(), kept);
        }
        assert_eq!(state.reservations(&[8; 16]).unwrap(), Reservations::new(true));
    }

    #[test]
    fn half_a_new_file_leaves_the_old_one_valid() {
        let folder = Folder::new("state-half");
        let state = State::open(Some(&folder.0)).unwrap().unwrap();
        state.keep(&UUID, &registered().to_record::<Arena>(&UUID)).unwrap();
        let new = state.path(&UUID).with_extension("new");
        fs::write(&new, b"half").unwrap();
        assert_eq!(state.reservations(&UUID).unwrap(), registered());
        state.keep(&UUID, &registered().to_record::<Arena>(&UUID)).unwrap();
        assert!(!new.exists());
    }

    #[test]
    fn a_damaged_file_is_refused_by_its_name() {
        let folder = Folder::new("state-damaged");
        let state = State::open(Some(&folder.0)).unwrap().unwrap();
        fs::write(state.path(&UUID), b"nonsense").unwrap();
        let said = state.reservations(&UUID).unwrap_err().to_string();
        assert!(said.contains("07070707-0707") && said.contains("damaged"), "{said}");
    }

    #[test]
    fn a_directory_that_was_asked_for_must_be_one() {
        let folder = Folder::new("state-file");
        fs::write(&folder.0, b"").unwrap();
        let said = State::open(Some(&folder.0)).unwrap_err().to_string();
        assert!(said.contains("--state-dir"), "{said}");
        fs::remove_file(&folder.0).unwrap();
    }
}

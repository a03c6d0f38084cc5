//! The unix socket by which an engine is managed: only its owner may open it.

use std::io::ErrorKind;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::process::{geteuid, umask};

use crate::error::{Error, Result};

/// Name of the socket in its folder.
const NAME: &str = "engine.sock";

/// Where the socket is unless `--socket` says otherwise: in the folder that systemd made for the
/// service, that of the system, or that of the user.
#[must_use]
pub fn default_path() -> PathBuf {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    // Of several, separated by colons, the first.
    let service = folder("RUNTIME_DIRECTORY").and_then(|value| value.into_string().ok());
    if let Some(first) = service.as_deref().and_then(|value| value.split(':').next()) {
        return Path::new(first).join(NAME);
    }
    let user = folder("XDG_RUNTIME_DIR").map(PathBuf::from);
    match user {
        Some(folder) if !geteuid().is_root() => folder.join("braid").join(NAME),
        _ => Path::new("/run/braid").join(NAME),
    }
}

/// A socket that is taken away with its owner.
#[derive(Debug)]
pub struct Socket {
    /// Where it is.
    pub path: PathBuf,
    listener: Option<UnixListener>,
}

/// Why there is no socket.
#[derive(Debug)]
pub enum NoSocket {
    /// Another engine answers there.
    Live(PathBuf),
    /// The system does not allow it.
    Failed(Error),
}

impl Socket {
    /// Makes the socket; replaces one that nobody answers at.
    ///
    /// # Errors
    /// When somebody does, or the folder does not allow it.
    pub fn bind(path: &Path) -> Result<Self, NoSocket> {
        let failed = |error| NoSocket::Failed(cannot(path, &error));
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        match UnixStream::connect(path) {
            Ok(_) => return Err(NoSocket::Live(path.into())),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                remove_stale(path).map_err(NoSocket::Failed)?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        // With the mask it never is open to others, not even for a moment.
        let before = umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
        let bound = UnixListener::bind(path);
        umask(before);
        let listener = bound.map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self { path: path.into(), listener: Some(listener) })
    }

    /// The listener, once.
    pub(crate) const fn take(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Whoever removed it already wanted the same.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes what is left of an engine that was killed; a file is somebody else's.
fn remove_stale(path: &Path) -> Result<()> {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    if !is_socket {
        return Err(Error::usage(format!(
            "--socket {} is there and is no socket; choose another path",
            path.display()
        )));
    }
    std::fs::remove_file(path).map_err(|error| cannot(path, &error))
}

fn cannot(path: &Path, error: &std::io::Error) -> Error {
    Error::run(format!(
        "cannot make the management socket {}: {error}; choose another --socket",
        path.display()
    ))
}

impl From<NoSocket> for Error {
    fn from(reason: NoSocket) -> Self {
        match reason {
            NoSocket::Live(path) => Self::run(format!(
                "another engine answers at {}; stop it, or choose another --socket",
                path.display()
            )),
            NoSocket::Failed(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("braid-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn a_socket_is_its_owners_alone() {
        let folder = folder("owner");
        let path = folder.join("below").join("s");
        let socket = Socket::bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(socket);
        assert!(!path.exists());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_refused() {
        let folder = folder("stale");
        let path = folder.join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let live = Socket::bind(&path).unwrap();
        let Err(NoSocket::Live(at)) = Socket::bind(&path) else { panic!("it is live") };
        assert_eq!(at, path);
        assert!(Error::from(NoSocket::Live(at)).to_string().contains("--socket"));
        drop(live);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_is_not_replaced() {
        let folder = folder("file");
        let path = folder.join("s");
        fs::write(&path, "precious").unwrap();
        let Err(NoSocket::Failed(error)) = Socket::bind(&path) else { panic!("it is a file") };
        assert!(error.to_string().contains("is no socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        fs::remove_dir_all(folder).unwrap();
    }
}

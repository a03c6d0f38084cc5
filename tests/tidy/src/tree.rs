//! The files that make up the project: what git tracks and what it would add.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The workspace's folder.
///
/// # Panics
/// If the package was moved away from `tests/tidy`.
#[must_use]
pub fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).expect("this package lies in tests/tidy").to_path_buf()
}

/// All files of the project, by path from its root.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    files: Vec<String>,
}

impl Tree {
    /// Reads the list of files. In a folder without git (a source archive) every file counts but
    /// for hidden folders and `target`.
    ///
    /// # Panics
    /// If the folder cannot be read.
    #[must_use]
    pub fn read() -> Self {
        let root = root();
        let tracked = listed(&root, &["--cached", "--others", "--exclude-standard"]);
        let mut files = tracked.unwrap_or_else(|| walked(&root));
        // A file that was deleted but not yet committed is no concern of any check.
        files.retain(|file| root.join(file).is_file());
        files.sort();
        assert!(!files.is_empty(), "no files below {}", root.display());
        Self { root, files }
    }

    /// Files and folders that are there but ignored by git; a folder's path ends in `/`.
    #[must_use]
    pub fn ignored() -> Vec<String> {
        listed(&root(), &["--others", "--ignored", "--exclude-standard"]).unwrap_or_default()
    }

    /// Paths that end in one of these.
    pub fn ending<'a>(&'a self, ends: &'a [&str]) -> impl Iterator<Item = &'a str> {
        self.files.iter().map(String::as_str).filter(|f| ends.iter().any(|e| f.ends_with(e)))
    }

    /// Every path.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(String::as_str)
    }

    /// A file's text, unless it is binary.
    #[must_use]
    pub fn text(&self, file: &str) -> Option<String> {
        String::from_utf8(std::fs::read(self.root.join(file)).ok()?).ok()
    }

    /// Whether a path from the root names a file or folder of the project.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let folder = format!("{path}/");
        path.is_empty() || self.files.iter().any(|f| f == path || f.starts_with(&folder))
    }
}

/// What `git ls-files` lists; nothing if this is no git folder.
fn listed(root: &Path, which: &[&str]) -> Option<Vec<String>> {
    let listing =
        Command::new("git").args(["ls-files", "-z"]).args(which).current_dir(root).output().ok()?;
    if !listing.status.success() {
        return None;
    }
    let text = String::from_utf8(listing.stdout).ok()?;
    Some(text.split('\0').filter(|f| !f.is_empty()).map(String::from).collect())
}

fn walked(root: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).expect("the project's folders can be read");
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with(".git") {
                    folders.push(path);
                }
            } else if let Ok(relative) = path.strip_prefix(root) {
                files.push(relative.to_string_lossy().into_owned());
            }
        }
    }
    files
}

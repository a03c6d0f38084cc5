//! Documents that are made of code.

use crate::fault::{Explain, Outcome};
use crate::{process, workspace};

/// The pages: the package and its example that prints it, and where it is kept.
const PAGES: [(&str, &str, &str); 2] = [
    ("braid-pool", "format", "docs/pool-format.md"),
    ("braid-nvme", "conformance", "docs/nvme-conformance.md"),
];

/// Makes every generated document anew.
pub(crate) fn main() -> Outcome<()> {
    PAGES.iter().try_for_each(|(package, example, place)| make(package, example, place))
}

fn make(package: &str, example: &str, place: &str) -> Outcome<()> {
    let mut program = workspace::cargo(["run", "--quiet", "-p", package, "--example", example]);
    let page = process::read(&mut program)?;
    let path = workspace::root().join(place);
    let old = std::fs::read_to_string(&path).unwrap_or_default();
    std::fs::write(&path, &page).explain(|| format!("cannot write {}", path.display()))?;
    let what = if old == page { "is as it was" } else { "was written anew" };
    println!("docs: {place} {what}");
    Ok(())
}

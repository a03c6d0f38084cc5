//! Documents that are made of code.

use crate::fault::{Explain, Outcome};
use crate::{process, workspace};

/// Makes every generated document anew.
pub(crate) fn main() -> Outcome<()> {
    let mut program =
        workspace::cargo(["run", "--quiet", "-p", "braid-pool", "--example", "format"]);
    let page = process::read(&mut program)?;
    let path = workspace::root().join("docs/pool-format.md");
    let old = std::fs::read_to_string(&path).unwrap_or_default();
    std::fs::write(&path, &page).explain(|| format!("cannot write {}", path.display()))?;
    let what = if old == page { "is as it was" } else { "was written anew" };
    println!("docs: docs/pool-format.md {what}");
    Ok(())
}

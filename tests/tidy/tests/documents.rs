//! Documents: links lead somewhere, states are legal, nothing names one machine.
#![forbid(unsafe_code)]

use std::path::{Component, Path};

use braid_tidy::{Findings, Tree};

/// Lines of the README: it is read in full or not at all.
const README_LINES_MAX: usize = 120;

/// Folders of one machine. Each in two parts, so that this file has none.
const MACHINE_FOLDERS: [&str; 4] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/fa", "rm/"), concat!("/ho", "me/")];

/// Scripts that run in a guest, where the same names are the guest's own folders.
const GUEST_SCRIPTS: &str = "xtask/guest/";

/// Whom the tree may link to. Everything else is either ours, or a machine that a reader cannot
/// reach.
const HOSTS: &[&str] = &[
    "127.0.0.1",
    "apache.org",
    "example.com",
    "github.com",
    "kernel.org",
    "localhost",
    "nvmexpress.org",
    "rust-lang.org",
    "www.apache.org",
];

/// Where a path in backquotes is one of ours.
const FOLDERS: [&str; 10] = [
    "benches/",
    "console/",
    "core/",
    "deploy/",
    "docs/",
    "examples/",
    "fuzz/",
    "shell/",
    "tests/",
    "xtask/",
];

#[test]
fn links_lead_somewhere() {
    let tree = Tree::read();
    let mut findings = Findings::default();
    for file in tree.ending(&[".md"]) {
        let text = tree.text(file).unwrap_or_default();
        for link in links(&text).iter().filter(|link| !link.target.contains("://")) {
            check_link(&tree, file, link, &mut findings);
        }
    }
    findings.none("relative links lead to a file, a heading and a name that exist");
}

#[test]
fn paths_in_documents_exist() {
    let tree = Tree::read();
    let mut findings = Findings::default();
    // A decision record is true for its day and stays as it was written.
    for file in tree.ending(&[".md"]).filter(|file| !file.starts_with("docs/adr/")) {
        let text = tree.text(file).unwrap_or_default();
        for (number, path) in quoted(&text) {
            let ours = FOLDERS.iter().any(|folder| path.starts_with(folder));
            let plain = !path.contains(['*', '<', '{', ' ', '(']);
            findings.expect(!(ours && plain) || tree.has(path), || {
                format!("{file}:{number} names {path}")
            });
        }
    }
    findings.none("paths that documents name exist");
}

#[test]
fn every_document_can_be_found_from_another() {
    let tree = Tree::read();
    let mut linked = Vec::new();
    for file in tree.ending(&[".md"]) {
        let text = tree.text(file).unwrap_or_default();
        linked.extend(links(&text).iter().filter_map(|link| resolve(file, &link.target)));
    }
    let mut findings = Findings::default();
    for file in tree.ending(&[".md"]).filter(|file| file.starts_with("docs/")) {
        findings.expect(linked.iter().any(|to| to == file), || file.to_string());
    }
    findings.none("every document below docs/ is linked from another");
}

#[test]
fn the_readme_is_short() {
    let lines = Tree::read().text("README.md").unwrap_or_default().lines().count();
    assert!((10..=README_LINES_MAX).contains(&lines), "README.md has {lines} lines");
}

#[test]
fn every_status_is_legal_and_shown() {
    let text = Tree::read().text("docs/status.md").unwrap_or_default();
    let mut findings = Findings::default();
    let mut rows = 0;
    for (number, line) in (1..).zip(text.lines()) {
        let Some(cells) = cells(line) else { continue };
        if cells[0] == "requirement" || cells[0].starts_with("---") {
            continue;
        }
        rows += 1;
        let place = || format!("docs/status.md:{number} {}", cells[0]);
        let [_, state, command, figure] = cells.as_slice() else {
            findings.add(format!("{}: not four cells", place()));
            continue;
        };
        let refused = state.starts_with("refused (") && state.ends_with(')');
        let legal = ["open", "done"].contains(state) || refused;
        findings.expect(legal, || format!("{}: {state:?} is no state", place()));
        let shown = !command.is_empty() && !figure.is_empty();
        findings.expect(*state != "done" || shown, || format!("{}: not shown", place()));
    }
    findings.expect(rows > 50, || format!("only {rows} rows"));
    findings.none("a row is open, done (with a command and a figure) or refused (with a reason)");
}

#[test]
fn decision_records_have_a_date_and_four_parts() {
    let tree = Tree::read();
    let mut findings = Findings::default();
    let records = tree.ending(&[".md"]).filter_map(|file| file.strip_prefix("docs/adr/"));
    for name in records.filter(|name| *name != "README.md") {
        findings.expect(is_dated(name), || format!("{name}: not YYYY-MM-DD-title.md"));
        let text = tree.text(&format!("docs/adr/{name}")).unwrap_or_default();
        let headings: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("## ")).collect();
        let whole = headings == ["Context", "Decision", "Alternatives", "Consequences"];
        findings.expect(whole, || format!("{name}: has {headings:?}"));
    }
    findings.none("records are dated and have context, decision, alternatives, consequences");
}

#[test]
fn nothing_names_a_machine() {
    let tree = Tree::read();
    let mut findings = Findings::default();
    for file in tree.all() {
        let Some(text) = tree.text(file) else { continue };
        for (number, line) in (1..).zip(text.lines()) {
            for folder in MACHINE_FOLDERS.iter().filter(|folder| line.contains(**folder)) {
                let guest = file.starts_with(GUEST_SCRIPTS);
                findings.expect(guest, || format!("{file}:{number} names {folder}"));
            }
            for host in hosts(line).filter(|host| !is_known(host)) {
                findings.add(format!("{file}:{number} names the host {host:?}"));
            }
        }
    }
    findings.none("no folder of one machine, and no host but those that tests/tidy lists");
}

#[test]
fn the_checks_see_what_they_look_for() {
    assert_eq!(resolve("docs/adr/a.md", "../../core/x.rs#y").as_deref(), Some("core/x.rs"));
    assert_eq!(resolve("README.md", "#part").as_deref(), Some("README.md"));
    assert_eq!(resolve("README.md", "../outside"), None);
    assert_eq!(slug("Life of a *write*, in `Shard`"), "life-of-a-write-in-shard");
    let found = links("see [`A::b`](c.rs) and\n![p](d.png)\n```\n[no](no.md)\n```\n");
    let targets: Vec<&str> = found.iter().map(|link| link.target.as_str()).collect();
    assert_eq!(targets, ["c.rs", "d.png"]);
    assert_eq!(name_in_code(&found[0].text), Some("b"));
    let two: Vec<_> = hosts("at https://a.example.com/c, http://localhost:1/").collect();
    assert_eq!(two, ["a.example.com", "localhost"]);
    assert_eq!(hosts("http://[::1]:9 http://{addr}/x").count(), 0);
    assert_eq!(cells("| a | b \\| c | |"), Some(vec!["a", "b \\| c", ""]));
    assert!(is_dated("2026-11-23-a.md") && !is_dated("title.md"));
}

/// A link of a document.
struct Link {
    line: usize,
    text: String,
    target: String,
}

fn check_link(tree: &Tree, file: &str, link: &Link, findings: &mut Findings) {
    let place = format!("{file}:{} links to {}", link.line, link.target);
    let Some(path) = resolve(file, &link.target) else {
        return findings.add(format!("{place}, outside of the project"));
    };
    if !tree.has(&path) {
        return findings.add(place);
    }
    let text = tree.text(&path).unwrap_or_default();
    if let Some((_, heading)) = link.target.split_once('#') {
        let known = text.lines().filter(|l| l.starts_with('#')).any(|l| slug(l) == heading);
        findings.expect(known, || format!("{place}, which has no such heading"));
    }
    if let Some(name) = name_in_code(&link.text).filter(|_| path.ends_with(".rs")) {
        findings.expect(text.contains(name), || format!("{place}, which has no {name}"));
    }
}

/// Where a link in `file` leads, by path from the root; nothing if out of the tree.
fn resolve(file: &str, target: &str) -> Option<String> {
    let path = target.split('#').next().unwrap_or_default();
    if path.is_empty() {
        return Some(file.to_string());
    }
    let mut parts: Vec<&str> = Path::new(file).parent()?.to_str()?.split('/').collect();
    parts.retain(|part| !part.is_empty());
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => drop(parts.pop()?),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

/// Inline links outside of code blocks.
fn links(text: &str) -> Vec<Link> {
    let mut found = Vec::new();
    for (line, content) in prose(text) {
        for (at, _) in content.match_indices("](") {
            let target = content[at + 2..].split(')').next().unwrap_or_default();
            let start = content[..at].rfind('[').map_or(0, |start| start + 1);
            let text = content[start..at].to_string();
            found.push(Link { line, text, target: target.to_string() });
        }
    }
    found
}

/// Pieces in backquotes outside of code blocks.
fn quoted(text: &str) -> impl Iterator<Item = (usize, &str)> {
    prose(text).flat_map(|(number, line)| {
        line.split('`').skip(1).step_by(2).map(move |piece| (number, piece))
    })
}

fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_block = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        in_block ^= fence;
        !in_block && !fence
    })
}

/// The last name of a link text such as `` `Shard::handle` ``.
fn name_in_code(text: &str) -> Option<&str> {
    let code = text.strip_prefix('`')?.strip_suffix('`')?;
    let name = code.rsplit("::").next()?.trim_end_matches("()");
    let plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    plain.then_some(name)
}

/// The anchor of a heading.
fn slug(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The cells of a table's row.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.strip_prefix('|')?.trim_end().strip_suffix('|')?;
    let mut cells = Vec::new();
    let mut start = 0;
    for (at, _) in inner.match_indices('|').filter(|(at, _)| !inner[..*at].ends_with('\\')) {
        cells.push(inner[start..at].trim());
        start = at + 1;
    }
    cells.push(inner[start..].trim());
    Some(cells)
}

fn is_dated(name: &str) -> bool {
    let mut date = name.bytes().zip("0000-00-00-".bytes());
    name.len() > "0000-00-00-.md".len()
        && date.all(|(c, p)| if p == b'0' { c.is_ascii_digit() } else { c == p })
}

/// The hosts of the web addresses on a line; placeholders and literal IPv6 addresses are none.
fn hosts(line: &str) -> impl Iterator<Item = &str> {
    let web = |at: usize| line[..at].ends_with("http") || line[..at].ends_with("https");
    let starts = line.match_indices("://").filter(move |(at, _)| web(*at));
    starts
        .map(|(at, mark)| {
            let rest = &line[at + mark.len()..];
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '.' || c == '-'));
            &rest[..end.unwrap_or(rest.len())]
        })
        .filter(|host| !host.is_empty())
}

fn is_known(host: &str) -> bool {
    let below = |known: &str| host == known || host.ends_with(&format!(".{known}"));
    HOSTS.iter().any(|known| below(known))
}

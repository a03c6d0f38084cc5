//! Rust files: what each begins with, what none may hold, how long things may grow.
#![forbid(unsafe_code)]

use braid_tidy::{Findings, Graph, Source, Tree};

/// Columns of a line. rustfmt keeps code within; this keeps strings and comments within too.
const LINE_COLUMNS_MAX: usize = 100;
/// Lines of a file without its unit tests. Most have 100 to 400; near the end of this one there
/// is always a second noun to be found.
const FILE_LINES_MAX: usize = 800;
/// Lines of a function. Most have under 10, nine in ten under 30. Between this and the zone
/// below a function stays as it is; above, it is cut.
const FUNCTION_LINES_MAX: usize = 100;
/// From here on a function is listed by `cargo test -p braid-tidy -- --nocapture long`.
const FUNCTION_LINES_ZONE: usize = 70;

/// Words that mark unfinished work. In two parts each, so that this file has none.
const UNFINISHED: [&str; 5] = [
    concat!("to", "do!"),
    concat!("unimpl", "emented!"),
    concat!("db", "g!"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];

/// The crate that holds all `unsafe`.
const UNSAFE_HOME: &str = "shell/reactor/";

#[test]
fn every_rust_file_says_what_it_is_for() {
    let tree = Tree::read();
    let mut findings = Findings::default();
    for file in rust(&tree) {
        let text = tree.text(file).unwrap_or_default();
        let says = text.strip_prefix("//! ").is_some_and(|rest| !rest.starts_with('\n'));
        findings.expect(says, || format!("{file}:1"));
    }
    findings.none("the first line of a file is `//!` and says what it is for");
}

#[test]
fn nothing_is_left_unfinished() {
    let tree = Tree::read();
    let mut findings = Findings::default();
    for file in rust(&tree) {
        let text = tree.text(file).unwrap_or_default();
        for (number, line) in (1..).zip(text.lines()) {
            for word in UNFINISHED.iter().filter(|word| has_word(line, word)) {
                findings.add(format!("{file}:{number} {word}"));
            }
        }
    }
    findings.none("no marks of unfinished work: open an issue, or do it");
}

#[test]
fn lines_are_short_and_without_tabs() {
    let tree = Tree::read();
    let mut findings = Findings::default();
    for file in rust(&tree) {
        let text = tree.text(file).unwrap_or_default();
        for (number, line) in (1..).zip(text.lines()) {
            let columns = line.chars().count();
            findings.expect(columns <= LINE_COLUMNS_MAX, || {
                format!("{file}:{number} has {columns} columns")
            });
            findings.expect(!line.contains('\t'), || format!("{file}:{number} has a tab"));
            findings.expect(line.trim_end() == line, || format!("{file}:{number} ends in a blank"));
        }
    }
    findings.none("lines have at most 100 columns, no tab and no blank at their end");
}

#[test]
fn files_are_short_enough_to_read() {
    let tree = Tree::read();
    let mut findings = Findings::default();
    for file in rust(&tree).filter(|file| !is_test(file)) {
        let text = tree.text(file).unwrap_or_default();
        let lines = Source::new(&text).product().count();
        findings.expect(lines <= FILE_LINES_MAX, || format!("{file}: {lines} lines"));
    }
    findings.none("a file has at most 800 lines before its tests");
}

#[test]
fn no_function_is_long() {
    let tree = Tree::read();
    let mut findings = Findings::default();
    for file in rust(&tree) {
        let text = tree.text(file).unwrap_or_default();
        for function in Source::new(&text).functions() {
            let place = format!("{file}:{} {}", function.line, function.name);
            let length = function.length;
            if length > FUNCTION_LINES_MAX {
                findings.add(format!("{place}: {length} lines"));
            } else if length > FUNCTION_LINES_ZONE {
                println!("{place}: {length} lines");
            }
        }
    }
    findings.none("a function has at most 100 lines");
}

#[test]
fn unsafe_code_lives_in_the_reactor_alone() {
    let tree = Tree::read();
    let graph = Graph::read();
    let mut findings = Findings::default();
    let roots = graph.ours().flat_map(|package| &package.targets);
    for (file, kind) in roots.filter(|(file, _)| !file.starts_with(UNSAFE_HOME)) {
        let product = ["lib", "bin", "example"].contains(&kind.as_str());
        let text = tree.text(file).unwrap_or_default();
        let forbids = text.lines().any(|line| line == "#![forbid(unsafe_code)]");
        findings.expect(!product || forbids, || format!("{file} does not forbid it"));
    }
    for file in rust(&tree).filter(|file| !file.starts_with(UNSAFE_HOME)) {
        let text = tree.text(file).unwrap_or_default();
        for (number, line) in Source::new(&text).code() {
            let used = has_word(line, concat!("un", "safe")) && !line.contains('"');
            findings.expect(!used, || format!("{file}:{number}"));
        }
    }
    findings.none("unsafe code lives in shell/reactor");
}

#[test]
fn no_source_is_ignored_by_git() {
    // A pattern that is too wide hides a folder from commits while every build here passes.
    let ignored = Tree::ignored();
    let mut findings = Findings::default();
    for file in ignored.iter().filter(|file| file.ends_with(".rs")) {
        let built = file.starts_with("target/") || file.starts_with("fuzz/target/");
        findings.expect(built, || file.clone());
    }
    findings.none("git ignores no source");
}

fn rust(tree: &Tree) -> impl Iterator<Item = &str> {
    tree.ending(&[".rs"])
}

fn is_test(file: &str) -> bool {
    file.contains("/tests/") || file.ends_with("/tests.rs")
}

/// Whether `line` has `word` with no letter, digit or underscore beside it.
fn has_word(line: &str, word: &str) -> bool {
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(joins) && !after.is_some_and(joins)
    })
}

//! The page that says what of the standard there is: the one that the code makes, and true.
#![forbid(unsafe_code)]

use std::fs::read_to_string;

use braid_nvme::conformance::{conformance_page, supported_rows, unnamed};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../");

#[test]
fn the_conformance_page_is_up_to_date() {
    let page = read_to_string(format!("{ROOT}docs/nvme-conformance.md")).unwrap_or_default();
    assert!(page == conformance_page(), "run `cargo xtask docs`");
}

#[test]
fn whatever_is_supported_is_tested_by_a_test_that_exists() {
    let mut rows = 0;
    for row in supported_rows() {
        let text = read_to_string(format!("{ROOT}{}", row.file)).unwrap_or_default();
        let test = format!("#[test]\nfn {}() {{", row.test);
        assert!(text.contains(&test), "there is no such test: {row:?}");
        rows += 1;
    }
    assert!(rows > 35, "{rows} rows are supported");
}

#[test]
fn nothing_is_answered_that_the_page_does_not_name() {
    assert_eq!(unnamed(), []);
}

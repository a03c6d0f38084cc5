//! The page that describes the format is the one that the types make.

#[test]
fn the_format_page_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/pool-format.md");
    let page = std::fs::read_to_string(path).unwrap_or_default();
    assert!(page == braid_pool::format_page(), "run `cargo xtask docs`");
}

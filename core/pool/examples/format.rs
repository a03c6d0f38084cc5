//! Prints the page that describes the format; `cargo xtask docs` keeps it in `docs/`.
#![forbid(unsafe_code)]

fn main() {
    print!("{}", braid_pool::format_page());
}

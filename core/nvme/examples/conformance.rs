//! Prints the page that says what of the standard there is; `cargo xtask docs` keeps it in `docs/`.
#![forbid(unsafe_code)]

fn main() {
    print!("{}", braid_nvme::conformance::conformance_page());
}

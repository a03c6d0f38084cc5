//! Prints the page that describes the format; `cargo xtask docs` keeps it in `docs/`.

fn main() {
    print!("{}", braid_pool::format_page());
}

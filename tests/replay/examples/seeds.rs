//! Writes the seeds below `fuzz/corpus`: `cargo run -p braid-replay --example seeds`.
#![forbid(unsafe_code)]

use std::path::Path;
use std::{fs, io};

fn main() -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let seeds = braid_replay::seeds::all();
    for seed in &seeds {
        let of_target = folder.join(seed.target);
        fs::create_dir_all(&of_target)?;
        fs::write(of_target.join(&seed.name), &seed.bytes)?;
    }
    println!("{} seeds written", seeds.len());
    Ok(())
}

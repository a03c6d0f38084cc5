//! The owner's half of the protocol: what a volume does with what happens to it.
//!
//! `world` puts a volume among replicas (each a real guard before blocks in memory) and a store,
//! and can hold, refuse or cut whatever is between them. Each `transcripts/*.txt` is a list of
//! stories: what happens, one thing a line, `----`, and all that came of it. `REWRITE=1 cargo test`
//! writes what came of it into the files, for review.

mod counted;
mod heap;
mod random;
mod replica;
mod script;
mod store;
mod words;
mod world;

#[test]
fn transcripts() {
    datadriven::walk(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/volume/transcripts"), |file| {
        let mut script = script::Script::default();
        file.run(|case| script.run(case));
    });
}

//! The supervisor against a model of engines: stories in which each step is seen, and random runs
//! in which its invariants are checked.
#![forbid(unsafe_code)]

mod random;
mod script;
mod world;

#[test]
fn stories_go_as_they_are_told() {
    datadriven::walk("tests/plan/transcripts", |file| {
        let mut script = script::Script::default();
        file.run(|case| script.run(case));
    });
}

//! A store that compares and swaps a record, and does not always say what came of it.

use std::collections::VecDeque;

use braid_nexus::{Record, Swapped};

use super::words;

/// How the store answers the next change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Nothing is done, and nobody knows.
    Lose,
    /// It is done, and nobody knows.
    Hide,
    /// It is neither done nor answered, until the story says so.
    Hold,
}

/// A change that is held: its number, what is expected, what shall be.
type Asked = (u64, Box<Record>, Box<Record>);

#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) record: Record,
    pub(crate) moods: VecDeque<Mood>,
    pub(crate) held: VecDeque<Asked>,
    /// Nobody can ask it for the record.
    pub(crate) deaf: bool,
}

impl Store {
    pub(crate) fn new(record: Record) -> Self {
        Self { record, moods: VecDeque::new(), held: VecDeque::new(), deaf: false }
    }

    /// A change is asked for: what is told of it, and the answer, if there is one now.
    pub(crate) fn swap(&mut self, asked: Asked) -> (String, Option<(u64, Swapped)>) {
        let change = words::change(&asked.1, &asked.2);
        let number = asked.0;
        match self.moods.pop_front() {
            None => {
                let outcome = self.apply(&asked);
                let told = match outcome {
                    Swapped::Committed => "committed",
                    _ => "it is another one",
                };
                (format!("store: {change}: {told}"), Some((number, outcome)))
            }
            Some(Mood::Lose) => {
                (format!("store: {change}: unknown"), Some((number, Swapped::Unknown)))
            }
            Some(Mood::Hide) => {
                self.apply(&asked);
                (format!("store: {change}: unknown, but done"), Some((number, Swapped::Unknown)))
            }
            Some(Mood::Hold) => {
                self.held.push_back(asked);
                (format!("store: {change}"), None)
            }
        }
    }

    /// Answers the oldest change that is held.
    pub(crate) fn release(&mut self) -> Option<(u64, Swapped)> {
        let asked = self.held.pop_front()?;
        Some((asked.0, self.apply(&asked)))
    }

    fn apply(&mut self, (_, old, new): &Asked) -> Swapped {
        if self.record == **old {
            self.record = (**new).clone();
            Swapped::Committed
        } else {
            Swapped::Changed(Box::new(self.record.clone()))
        }
    }
}

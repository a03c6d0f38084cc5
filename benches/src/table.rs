//! The table of results, for people and for programs.

use serde_json::{Value, json};

use crate::measure::Figure;

/// How a figure stands to its aim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The worse quartile meets it too.
    Met,
    /// The median meets it, the worse quartile does not.
    Barely,
    /// The median misses it.
    Missed,
    /// Nothing to meet: shown for comparison.
    Shown,
}

/// What is aimed at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Aim {
    /// At least so much.
    AtLeast(f64),
    /// At most so much.
    AtMost(f64),
    /// As near to one as this.
    Within(f64),
    /// None.
    None,
}

impl Aim {
    fn verdict(self, figure: &Figure) -> Verdict {
        let (median, worse) = match self {
            Self::None => return Verdict::Shown,
            Self::AtLeast(aim) => (figure.median >= aim, figure.low >= aim),
            Self::AtMost(aim) => (figure.median <= aim, figure.high <= aim),
            Self::Within(aim) => {
                let near = |number: f64| (number - 1.0).abs() <= aim;
                (near(figure.median), near(figure.low) && near(figure.high))
            }
        };
        match (median, worse) {
            (true, true) => Verdict::Met,
            (true, false) => Verdict::Barely,
            (false, _) => Verdict::Missed,
        }
    }
}

impl Verdict {
    const fn name(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Barely => "met by the median",
            Self::Missed => "missed",
            Self::Shown => "",
        }
    }
}

/// A row: what was measured on our side, beside what, and what counts.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Which aim it belongs to.
    pub(crate) id: &'static str,
    /// What was measured.
    pub(crate) what: String,
    /// Unit of both sides.
    pub(crate) unit: &'static str,
    /// Our side.
    pub(crate) ours: Figure,
    /// The other side, if there is one.
    pub(crate) other: Option<Figure>,
    /// What the aim is about: the ratio of both sides, or ours alone.
    pub(crate) counts: Figure,
    /// What is aimed at.
    pub(crate) aim: Aim,
    /// The aim in words.
    pub(crate) aim_text: String,
}

impl Row {
    /// How it stands.
    #[must_use]
    pub(crate) fn verdict(&self) -> Verdict {
        self.aim.verdict(&self.counts)
    }

    /// A line of the table.
    #[must_use]
    pub(crate) fn line(&self) -> String {
        let other = self.other.map(|other| self.show(&other)).unwrap_or_default();
        let is_ratio = self.other.is_some() && self.counts != self.ours;
        let ratio = if is_ratio { show_ratio(&self.counts) } else { String::new() };
        let verdict = self.verdict().name();
        format!(
            "| {:<4}| {:<52}| {:>22} | {:>22} | {:>17} | {:<20}| {:<18}|",
            self.id,
            self.what,
            self.show(&self.ours),
            other,
            ratio,
            self.aim_text,
            verdict
        )
    }

    /// The row for programs.
    #[must_use]
    pub(crate) fn json(&self) -> Value {
        let figure = |f: &Figure| json!({ "q1": f.low, "median": f.median, "q3": f.high });
        json!({
            "id": self.id,
            "what": self.what,
            "unit": self.unit,
            "ours": figure(&self.ours),
            "other": self.other.as_ref().map(figure),
            "counts": figure(&self.counts),
            "aim": self.aim_text,
            "verdict": self.verdict().name(),
        })
    }

    fn show(&self, figure: &Figure) -> String {
        let [median, low, high] =
            [figure.median, figure.low, figure.high].map(|number| short(number, self.unit));
        format!("{median} ({low}..{high}) {}", unit(self.unit))
    }
}

/// The head of the table.
#[must_use]
pub(crate) fn head() -> String {
    let names = format!(
        "| {:<4}| {:<52}| {:>22} | {:>22} | {:>17} | {:<20}| {:<18}|",
        "", "median (quartiles)", "ours", "other", "ratio", "aim", ""
    );
    format!("{names}\n|{}|", ["---"; 7].join("|"))
}

/// Thousands of IOPS are shown as such.
fn short(number: f64, unit: &str) -> String {
    match unit {
        "IOPS" if number >= 9_950.0 => format!("{:.0}", number / 1e3),
        "IOPS" => format!("{:.1}", number / 1e3),
        _ if number >= 100.0 => format!("{number:.0}"),
        _ if number >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

fn unit(unit: &str) -> &str {
    if unit == "IOPS" { "k/s" } else { unit }
}

fn show_ratio(figure: &Figure) -> String {
    format!("{:.2} ({:.2}..{:.2})", figure.median, figure.low, figure.high)
}

/// What the whole run found, in a line.
#[must_use]
pub(crate) fn summary(rows: &[Row]) -> String {
    let number = |verdict| rows.iter().filter(|row| row.verdict() == verdict).count();
    let (met, barely) = (number(Verdict::Met), number(Verdict::Barely));
    let missed: Vec<&str> = rows
        .iter()
        .filter(|row| row.verdict() == Verdict::Missed)
        .map(|row| row.what.as_str())
        .collect();
    let list = if missed.is_empty() { String::new() } else { format!(": {}", missed.join("; ")) };
    let aims = met + barely + missed.len();
    format!(
        "bench: {met} of {aims} aims met, {barely} more by the median, {} missed{list}",
        missed.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aim_is_met_only_when_the_quartiles_agree() {
        let figure = Figure { low: 0.4, median: 0.6, high: 0.7 };
        assert_eq!(Aim::AtLeast(0.4).verdict(&figure), Verdict::Met);
        assert_eq!(Aim::AtLeast(0.5).verdict(&figure), Verdict::Barely);
        assert_eq!(Aim::AtLeast(0.65).verdict(&figure), Verdict::Missed);
        assert_eq!(Aim::AtMost(0.65).verdict(&figure), Verdict::Barely);
        assert_eq!(Aim::None.verdict(&figure), Verdict::Shown);
    }
}

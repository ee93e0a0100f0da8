//! Measured times and what is made of them.

use std::fmt;
use std::time::Duration;

/// Times by what was measured, and comparisons between them.
#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
}

struct Row {
    name: String,
    samples: Vec<Duration>,
    comparisons: Vec<Comparison>,
}

/// The ratio of a row's median to another row's.
struct Comparison {
    with: String,
    target: Target,
}

/// What is asked of a ratio.
enum Target {
    Nothing,
    /// The time is at most this part of the other one.
    AtMost(f64),
    /// As much is done at least this many times as often.
    AtLeastTimes(f64),
}

impl Target {
    fn describe(&self, ratio: f64, with: &str) -> String {
        let verdict = |met: bool| if met { "met" } else { "MISSED" };
        match self {
            Self::Nothing => format!("{ratio:.2} of {with}"),
            Self::AtMost(most) => {
                format!("{ratio:.2} of {with} (at most {most}: {})", verdict(ratio <= *most))
            }
            Self::AtLeastTimes(least) => {
                let rate = 1.0 / ratio;
                let met = verdict(rate >= *least);
                format!("{rate:.2} times the rate of {with} (at least {least}: {met})")
            }
        }
    }
}

impl Table {
    /// Adds one measured time to the row `name`.
    pub fn add(&mut self, name: &str, time: Duration) {
        match self.rows.iter_mut().find(|row| row.name == name) {
            Some(row) => row.samples.push(time),
            None => self.rows.push(Row {
                name: name.to_owned(),
                samples: vec![time],
                comparisons: Vec::new(),
            }),
        }
    }

    /// Shows the ratio of the row `name` to the row `with`, and the most that
    /// it should be.
    pub fn compare(&mut self, name: &str, with: &str, target: Option<f64>) {
        self.expect(name, with, target.map_or(Target::Nothing, Target::AtMost));
    }

    /// Shows how many times as often the row `name` is done as the row `with`, and how
    /// many times it should be.
    pub fn compare_rate(&mut self, name: &str, with: &str, least: f64) {
        self.expect(name, with, Target::AtLeastTimes(least));
    }

    fn expect(&mut self, name: &str, with: &str, target: Target) {
        let row = self.rows.iter_mut().find(|row| row.name == name);
        let row = row.unwrap_or_else(|| panic!("{name} was not measured"));
        row.comparisons.push(Comparison { with: with.to_owned(), target });
    }

    fn median_of(&self, name: &str) -> f64 {
        let row = self.rows.iter().find(|row| row.name == name);
        row.unwrap_or_else(|| panic!("{name} was not measured")).quantile(0.5)
    }
}

impl Row {
    /// A quantile (0 to 1) of the times, in milliseconds.
    fn quantile(&self, quantile: f64) -> f64 {
        let mut sorted = self.samples.clone();
        sorted.sort_unstable();
        let last = sorted.len() - 1;
        let index = (last as f64 * quantile).round() as usize;
        sorted[index].as_secs_f64() * 1000.0
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "| measured | median ms | 90 % ms | ratio |")?;
        writeln!(formatter, "|---|--:|--:|---|")?;
        for row in &self.rows {
            let ratio = |comparison: &Comparison| {
                let ratio = row.quantile(0.5) / self.median_of(&comparison.with);
                comparison.target.describe(ratio, &comparison.with)
            };
            let ratios: Vec<String> = row.comparisons.iter().map(ratio).collect();
            let (median, ninety) = (row.quantile(0.5), row.quantile(0.9));
            let ratios = ratios.join("; ");
            writeln!(formatter, "| {} | {median:.2} | {ninety:.2} | {ratios} |", row.name)?;
        }
        Ok(())
    }
}

/// The subjects of one round, each time beginning with another one, so that
/// none always comes after the same neighbour's clean-up.
pub fn in_turn<T>(subjects: &[T], round: usize) -> impl Iterator<Item = &T> {
    let first = round % subjects.len();
    subjects[first..].iter().chain(&subjects[..first])
}

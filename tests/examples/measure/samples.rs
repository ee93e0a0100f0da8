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
    /// What the ratio should not exceed.
    target: Option<f64>,
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
                let target = comparison.target.map(|target| {
                    let verdict = if ratio <= target { "met" } else { "MISSED" };
                    format!(" (at most {target}: {verdict})")
                });
                format!("{ratio:.2} of {}{}", comparison.with, target.unwrap_or_default())
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

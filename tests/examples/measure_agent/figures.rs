//! Measured figures beside their targets.

use std::fmt;

/// What a figure is measured in.
#[derive(Clone, Copy)]
pub enum Unit {
    /// Milliseconds.
    Milliseconds,
    /// Megabytes (10^6 bytes).
    Megabytes,
    /// A number of times.
    Times,
}

/// Figures in the order in which they were first measured.
#[derive(Default)]
pub struct Figures {
    rows: Vec<Row>,
    latest: usize,
}

struct Row {
    name: String,
    unit: Unit,
    samples: Vec<f64>,
    limit: Option<f64>,
}

impl Figures {
    /// Adds one sample.
    pub fn add(&mut self, name: &str, unit: Unit, sample: f64) {
        self.latest = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            self.rows.push(Row { name: name.to_owned(), unit, samples: Vec::new(), limit: None });
            self.rows.len() - 1
        });
        self.rows[self.latest].samples.push(sample);
    }

    /// The median of what was added last must not exceed this.
    pub fn limit(&mut self, limit: f64) {
        self.rows[self.latest].limit = Some(limit);
    }

    /// Whether every target is met.
    pub fn are_met(&self) -> bool {
        self.rows.iter().all(Row::is_met)
    }
}

impl Row {
    /// The smallest sample, the median and the largest.
    fn quantiles(&self) -> [f64; 3] {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        [0, sorted.len() / 2, sorted.len() - 1].map(|index| sorted[index])
    }

    fn is_met(&self) -> bool {
        let [_, median, _] = self.quantiles();
        self.limit.is_none_or(|limit| median <= limit)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "| measured | times | median | least | most | at most |")?;
        writeln!(formatter, "|---|--:|--:|--:|--:|---|")?;
        for row in &self.rows {
            let (decimals, unit) = match row.unit {
                Unit::Milliseconds => (1, " ms"),
                Unit::Megabytes => (1, " MB"),
                Unit::Times => (0, ""),
            };
            let text = |figure: f64| format!("{figure:.decimals$}{unit}");
            let [least, median, most] = row.quantiles().map(text);
            let verdict = if row.is_met() { "met" } else { "MISSED" };
            let limit = row.limit.map(|limit| format!("{limit}{unit}: {verdict}"));
            let (name, limit) = (&row.name, limit.unwrap_or_default());
            let count = row.samples.len();
            writeln!(formatter, "| {name} | {count} | {median} | {least} | {most} | {limit} |")?;
        }
        Ok(())
    }
}

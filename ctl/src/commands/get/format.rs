//! The formats of `weirctl get`.

use weir_common::resources::Kind;

use super::table::{Column, columns, wide_columns};
use crate::session::Failure;

/// How resources are shown.
#[derive(Debug)]
pub enum Format {
    /// A table with these columns.
    Columns(Vec<Column>),
    /// A YAML document.
    Yaml,
    /// A JSON document.
    Json,
    /// One `kind/name` a line.
    Name,
}

impl Format {
    /// Reads the value of `-o`.
    ///
    /// # Errors
    /// [`Failure`] naming the formats, or the columns, that there are.
    pub fn parse(text: &str, kind: Kind) -> Result<Self, Failure> {
        if let Some(names) = text.strip_prefix("custom-columns=") {
            return custom_columns(names, kind).map(Self::Columns);
        }
        Ok(match text {
            "ps" => Self::Columns(columns(kind).to_vec()),
            "wide" => Self::Columns(wide_columns(kind).to_vec()),
            "yaml" => Self::Yaml,
            "json" => Self::Json,
            "name" => Self::Name,
            other => {
                return Err(Failure::new(format!(
                    "failed to get resources: unrecognized output format '{other}'; \
                     write one of ps, wide, yaml, json, name, custom-columns=COLUMN,…"
                )));
            }
        })
    }
}

fn custom_columns(names: &str, kind: Kind) -> Result<Vec<Column>, Failure> {
    let find = |name: &str| {
        let known = wide_columns(kind).iter();
        known.clone().find(|column| column.title.eq_ignore_ascii_case(name)).copied().ok_or_else(
            || {
                let titles: Vec<_> = known.map(|column| column.title).collect();
                Failure::new(format!(
                    "failed to get resources: unknown column '{name}'; write some of {}",
                    titles.join(",")
                ))
            },
        )
    };
    names.split(',').map(str::trim).map(find).collect()
}

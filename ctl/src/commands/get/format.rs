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
        if text.starts_with("go-template") {
            return Err(Failure::new(format!(
                "failed to get resources: templates of Go are not supported; choose columns with \
                 -o custom-columns={}, or take -o json",
                titles(kind)
            )));
        }
        Ok(match text {
            "ps" => Self::Columns(columns(kind).to_vec()),
            "wide" => Self::Columns(wide_columns(kind).to_vec()),
            "yaml" | "yml" => Self::Yaml,
            "json" => Self::Json,
            "name" => Self::Name,
            other => {
                return Err(Failure::new(format!(
                    "failed to get resources: unrecognized output format '{other}'; \
                     write one of ps, wide, yaml, json, name, custom-columns=COLUMN,…; for example: \
                     weirctl get {} -o wide",
                    kind.alias()
                )));
            }
        })
    }
}

/// The titles of all columns, as they can be asked for.
fn titles(kind: Kind) -> String {
    wide_columns(kind).iter().map(|column| column.title).collect::<Vec<_>>().join(",")
}

fn custom_columns(names: &str, kind: Kind) -> Result<Vec<Column>, Failure> {
    let find = |name: &str| {
        let known = wide_columns(kind).iter();
        known.clone().find(|column| column.title.eq_ignore_ascii_case(name)).copied().ok_or_else(
            || {
                Failure::new(format!(
                    "failed to get resources: unknown column '{name}'; write some of {titles}: \
                     weirctl get {} -o custom-columns={titles}",
                    kind.alias(),
                    titles = titles(kind)
                ))
            },
        )
    };
    names.split(',').map(str::trim).map(find).collect()
}

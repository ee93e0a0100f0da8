//! How results look: tables, YAML and JSON, as calicoctl prints them.

pub mod boxed;
pub mod columns;
pub mod json;
pub mod number;
mod records;
mod style;
mod width;
pub mod yaml;

pub use style::Style;

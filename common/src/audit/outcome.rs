//! What became of a repair.

/// What a repair did about a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepairOutcome {
    /// It repaired it.
    Repaired,
    /// It was gone already.
    Gone,
    /// It left it alone, for this reason.
    Left(String),
}

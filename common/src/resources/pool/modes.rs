//! The fields of a pool that have one of a few values.

use std::fmt::{Display, Formatter};

use serde::{Deserialize, Serialize};

use crate::resources::error::FieldError;
use crate::resources::fields::{Fields, Problems};
use crate::resources::types::display;

/// When packets between nodes are encapsulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EncapsulationMode {
    /// Never: the network between the nodes routes the pool's addresses.
    Never,
    /// To every other node.
    Always,
    /// Only to nodes outside this node's own subnet.
    CrossSubnet,
}

/// What a pool's addresses may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowedUse {
    /// Containers and virtual machines.
    Workload,
    /// A node's tunnel device.
    Tunnel,
    /// Kubernetes services of type `LoadBalancer`. Weir assigns none.
    LoadBalancer,
}

/// Who decides that a pool is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssignmentMode {
    /// Every attachment that asks for no pool may get an address from it.
    Automatic,
    /// Only attachments that ask for it get an address from it.
    Manual,
}

/// A type with a few named values.
trait ModeNames: Copy + Sized + 'static {
    const ALL: &'static [(Self, &'static str)];

    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, candidate)| *candidate == name).map(|(value, _)| *value)
    }

    fn names() -> String {
        let names: Vec<_> = Self::ALL.iter().map(|(_, name)| *name).collect();
        names.join(", ")
    }
}

impl ModeNames for EncapsulationMode {
    const ALL: &'static [(Self, &'static str)] =
        &[(Self::Never, "Never"), (Self::Always, "Always"), (Self::CrossSubnet, "CrossSubnet")];
}

impl ModeNames for AllowedUse {
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::Workload, "Workload"),
        (Self::Tunnel, "Tunnel"),
        (Self::LoadBalancer, "LoadBalancer"),
    ];
}

impl ModeNames for AssignmentMode {
    const ALL: &'static [(Self, &'static str)] =
        &[(Self::Automatic, "Automatic"), (Self::Manual, "Manual")];
}

impl Display for EncapsulationMode {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        write_name(*self, formatter)
    }
}

impl Display for AllowedUse {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        write_name(*self, formatter)
    }
}

impl Display for AssignmentMode {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        write_name(*self, formatter)
    }
}

fn write_name<T: ModeNames + PartialEq>(
    value: T,
    formatter: &mut Formatter<'_>,
) -> std::fmt::Result {
    let name = T::ALL.iter().find(|(candidate, _)| *candidate == value).map(|(_, name)| *name);
    formatter.write_str(name.unwrap_or_default())
}

/// Reads a field that asks for tunnels (`ipipMode`, `vxlanMode`).
pub(super) fn read_encapsulation(
    key: &'static str,
    spec: &Fields<'_>,
    problems: &mut Problems,
) -> Option<(&'static str, EncapsulationMode)> {
    let mode = read_named(key, &display(key), spec, problems)?;
    (mode != EncapsulationMode::Never).then_some((key, mode))
}

/// Reads `assignmentMode`.
pub(super) fn read_assignment_mode(spec: &Fields<'_>, problems: &mut Problems) -> AssignmentMode {
    read_named("assignmentMode", "AssignmentMode", spec, problems)
        .unwrap_or(AssignmentMode::Automatic)
}

/// Reads `allowedUses`; absent and empty mean workloads and tunnels.
pub(super) fn read_allowed_uses(spec: &Fields<'_>, problems: &mut Problems) -> Vec<AllowedUse> {
    let mut uses = Vec::new();
    for name in spec.texts("allowedUses", "AllowedUses", problems) {
        match AllowedUse::named(name) {
            Some(purpose) => uses.push(purpose),
            None => problems.add(
                FieldError::new(spec.path("AllowedUses"), format!("unknown use: {name}"))
                    .value(name)
                    .advice(format!("choose from {}", AllowedUse::names())),
            ),
        }
    }
    if uses.is_empty() { vec![AllowedUse::Workload, AllowedUse::Tunnel] } else { uses }
}

fn read_named<T: ModeNames>(
    key: &str,
    display: &str,
    spec: &Fields<'_>,
    problems: &mut Problems,
) -> Option<T> {
    let name = spec.text(key, display, problems)?;
    let value = T::named(name);
    if value.is_none() {
        let reason = format!("must be one of {}", T::names());
        let guess = T::ALL.iter().find(|(_, candidate)| similar(candidate, name));
        let problem = FieldError::new(spec.path(display), reason).value(name);
        problems.add(match guess {
            Some((_, guess)) => problem.advice(format!("write {guess}")),
            None => problem,
        });
    }
    value
}

/// Whether two names differ in nothing but case and punctuation, as v1's
/// `cross-subnet` and v3's `CrossSubnet`.
fn similar(left: &str, right: &str) -> bool {
    let letters = |text: &str| -> String {
        text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
    };
    letters(left) == letters(right)
}

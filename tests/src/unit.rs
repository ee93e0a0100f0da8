//! What systemd leaves to a program by its unit.

use std::fs;
use std::path::Path;

/// The start of a command line whose program has no more capabilities than this unit of
/// `conf/systemd` gives it (`CapabilityBoundingSet`).
pub fn confinement(unit: &str) -> [String; 3] {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf/systemd").join(unit);
    let text = fs::read_to_string(&file).expect("reading the unit");
    let line = text.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names = line.expect("the unit bounds its capabilities").split_whitespace();
    let short = |name: &str| name.strip_prefix("CAP_").expect("a capability").to_ascii_lowercase();
    let kept: Vec<String> = names.map(|name| format!("+{}", short(name))).collect();
    ["setpriv".to_owned(), "--bounding-set".to_owned(), format!("-all,{}", kept.join(","))]
}

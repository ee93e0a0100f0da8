//! Where the programs under test are.

use std::env;
use std::path::{Path, PathBuf};

/// Where the reference CNI plugins are (Debian's containernetworking-plugins).
pub const CNI_PATH: &str = "/usr/lib/cni";

/// The directory with `weir`, `weir-ipam` and `weirctl`, built in the same
/// profile as the calling test.
pub fn binaries() -> PathBuf {
    let executable = env::current_exe().expect("Linux knows a process's executable");
    let directory = executable
        .ancestors()
        .skip(1)
        .take(2)
        .find(|directory| is_complete(directory))
        .map(Path::to_path_buf);
    directory.unwrap_or_else(|| {
        panic!(
            "weir, weir-ipam and weirctl are not built beside {}: run scripts/test.sh, or \
             `cargo build --workspace` before `cargo test`",
            executable.display()
        )
    })
}

/// What `CNI_PATH` is set to: [`binaries`], then the reference plugins.
pub fn cni_path() -> String {
    format!("{}:{CNI_PATH}", binaries().display())
}

/// The path of a program in `PATH` or in Go's directory for programs.
pub fn find_program(name: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let go = env::var_os("HOME").map(|home| Path::new(&home).join("go/bin"));
    env::split_paths(&path)
        .chain(go)
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed: run scripts/test.sh"))
}

fn is_complete(directory: &Path) -> bool {
    ["weir", "weir-ipam", "weirctl"].iter().all(|name| directory.join(name).is_file())
}

//! A node's own directories.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::mount::{MsFlags, mount};

/// Where the machine's directories can be found on a node.
const MACHINE: &str = "/run/machine";
/// Directories of which a node has its own, and the machine's entries in them
/// that it does not see.
const OWN: [(&str, &[&str]); 3] = [
    ("/etc", &["cni", "docker", "weir"]),
    ("/opt", &["cni"]),
    ("/var/lib", &["cni", "docker", "weir"]),
];
/// Directories that exist on a node from the start.
const MADE: [&str; 4] = ["/run/netns", "/etc/cni/net.d", "/etc/weir", "/var/lib/cni"];

/// Gives the calling thread's mount namespace empty directories of its own
/// wherever Weir, the plugins, `ip netns` or etcd keep files. Nothing has to
/// exist on the machine to be mounted over, and nothing else is hidden.
pub(crate) fn prepare() {
    mount_tmpfs("/run");
    for (path, hidden) in OWN {
        replace(path, hidden);
    }
    for path in MADE {
        fs::create_dir_all(path).unwrap_or_else(|error| panic!("making {path}: {error}"));
    }
}

/// Puts a fresh directory in the place of `path`, with links to all entries
/// but the `hidden` ones.
fn replace(path: &str, hidden: &[&str]) {
    let original = Path::new(MACHINE).join(path.trim_start_matches('/'));
    fs::create_dir_all(&original).expect("making a mount point on a fresh tmpfs");
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(path), &original, None::<&str>, bind, None::<&str>)
        .unwrap_or_else(|error| panic!("binding {path}: {error}"));
    mount_tmpfs(path);
    for entry in fs::read_dir(&original).unwrap_or_else(|error| panic!("reading {path}: {error}")) {
        let name = entry.expect("reading a directory").file_name();
        if hidden.iter().all(|hidden| name != *hidden) {
            symlink(original.join(&name), Path::new(path).join(&name))
                .unwrap_or_else(|error| panic!("linking {path}: {error}"));
        }
    }
}

fn mount_tmpfs(path: &str) {
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .unwrap_or_else(|error| panic!("mounting a tmpfs on {path}: {error}"));
}

//! A node's own directories.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::mount::{MsFlags, mount};

/// Where the machine's `/etc` can be found on a node.
const MACHINE_ETC: &str = "/run/machine-etc";
/// Entries of `/etc` that a node does not take from the machine.
const OWN_ETC: [&str; 2] = ["cni", "weir"];
/// Directories that exist on a node from the start.
const MADE: [&str; 4] = ["/run/netns", "/etc/cni/net.d", "/etc/weir", "/var/lib/cni"];

/// Gives the calling thread's mount namespace empty directories of its own
/// wherever Weir, the plugins, `ip netns` or etcd keep files.
///
/// `/etc` keeps what the machine has, by links, except [`OWN_ETC`]; thus
/// nothing has to exist on the machine to be mounted over.
pub(crate) fn prepare() {
    for path in ["/run", "/var/lib", "/var/log"] {
        mount_tmpfs(path);
    }
    fs::create_dir(MACHINE_ETC).expect("making a mount point on a fresh tmpfs");
    mount(
        Some("/etc"),
        MACHINE_ETC,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .expect("binding /etc");
    mount_tmpfs("/etc");
    for entry in fs::read_dir(MACHINE_ETC).expect("reading /etc") {
        let name = entry.expect("reading /etc").file_name();
        if OWN_ETC.iter().all(|own| name != *own) {
            symlink(Path::new(MACHINE_ETC).join(&name), Path::new("/etc").join(&name))
                .expect("linking into /etc");
        }
    }
    for path in MADE {
        fs::create_dir_all(path).unwrap_or_else(|error| panic!("making {path}: {error}"));
    }
}

fn mount_tmpfs(path: &str) {
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .unwrap_or_else(|error| panic!("mounting a tmpfs on {path}: {error}"));
}

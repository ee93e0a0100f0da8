//! What container runtimes need to run on a node without touching the machine.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use nix::mount::umount;
use serde_json::json;

use crate::binaries::{CNI_PATH, binaries, find_program};
use crate::node::Node;
use crate::place::Place;

/// The name of the image that [`write_image`] makes.
pub const IMAGE: &str = "localhost/busybox:test";

/// What a container of the image answers to each connection to its port 80.
pub const SERVED: &str = "served";

/// Where runtimes look for plugins by default.
pub(crate) const PLUGINS: &str = "/opt/cni/bin";

/// An OCI runtime that keeps its hands off the machine's control groups.
pub(crate) const OCI_RUNTIME: &str = "/run/crun-without-cgroups";

/// The programs that containers of the image have, all of them busybox.
const APPLETS: [&str; 5] = ["sh", "echo", "nc", "ping", "ip"];

/// Makes a node ready for container runtimes: plugins in [`PLUGINS`] and an OCI
/// runtime at [`OCI_RUNTIME`].
pub(crate) fn prepare(node: &Node) {
    // Found before the node's namespaces are entered: in them /proc does not know
    // this process.
    let weirs = ["weir", "weir-ipam"].map(|name| binaries().join(name));
    let crun = find_program("crun");
    node.enter(|| {
        // crun refuses a machine on which both versions of control groups are
        // mounted. Elsewhere nothing is mounted there.
        umount("/sys/fs/cgroup/unified").ok();
        fs::create_dir_all(PLUGINS).expect("making the directory of plugins");
        let others = fs::read_dir(CNI_PATH).expect("the reference plugins are installed");
        let others = others.map(|entry| entry.expect("reading a directory").path());
        for plugin in weirs.into_iter().chain(others) {
            let name = plugin.file_name().expect("a plugin has a name");
            symlink(&plugin, Path::new(PLUGINS).join(name)).expect("linking a plugin");
        }
        let script =
            format!("#!/bin/sh\nexec {} --cgroup-manager=disabled \"$@\"\n", crun.display());
        fs::write(OCI_RUNTIME, script).expect("writing the OCI runtime");
        fs::set_permissions(OCI_RUNTIME, fs::Permissions::from_mode(0o755))
            .expect("making the OCI runtime executable");
    });
}

/// Makes an image out of nothing but Debian's static busybox, as `docker save`
/// writes it, and returns its path on the node. A container of it says [`SERVED`]
/// on its standard output, and then to everybody who connects to port 80.
pub(crate) fn write_image(node: &Node) -> &'static str {
    const DIRECTORY: &str = "/run/image";
    const IMAGE_FILE: &str = "/run/image.tar";
    let busybox = find_program("busybox");
    node.enter(|| {
        let programs = Path::new(DIRECTORY).join("rootfs/bin");
        fs::create_dir_all(&programs).expect("making a directory");
        fs::copy(&busybox, programs.join("busybox")).expect("copying busybox");
        for applet in APPLETS {
            symlink("busybox", programs.join(applet)).expect("linking an applet");
        }
    });
    let rootfs = format!("{DIRECTORY}/rootfs");
    let layer = format!("{DIRECTORY}/layer.tar");
    node.run(&["tar", "-C", &rootfs, "-cf", &layer, "."]);
    let digest = node.run(&["sha256sum", &layer]);
    let digest = digest.split(' ').next().expect("sha256sum prints the digest first");
    let serve = format!("echo {SERVED}; exec nc -ll -p 80 -e echo {SERVED}");
    let configuration = json!({
        "architecture": node.run(&["dpkg", "--print-architecture"]).trim(),
        "os": "linux",
        "config": {"Cmd": ["/bin/sh", "-c", serve]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    node.write(&format!("{DIRECTORY}/config.json"), &configuration.to_string());
    node.write(&format!("{DIRECTORY}/manifest.json"), &manifest.to_string());
    let members = ["manifest.json", "config.json", "layer.tar"];
    node.run(&[&["tar", "-C", DIRECTORY, "-cf", IMAGE_FILE][..], &members].concat());
    IMAGE_FILE
}

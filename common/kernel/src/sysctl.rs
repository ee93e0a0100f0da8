//! Kernel parameters, by the files below `/proc/sys`. Those of the network are
//! the ones of the namespace that the thread is in.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use weir_common::network::{Before, Side, Sysctl};

use crate::Kernel;
use crate::error::Error;

/// Where a container has the parameters of its node, as Cilium's agent has them.
const OF_NODE: &str = "/host/proc/sys";

impl Kernel {
    /// Gives a parameter its value and tells what it was.
    pub(crate) fn set_sysctl(&self, sysctl: &Sysctl) -> Result<Before, Error> {
        self.within(sysctl.side, || set(sysctl))?.or_else(|cause| {
            if sysctl.optional && cause.kind() == io::ErrorKind::NotFound {
                return Ok(Before::Same);
            }
            Err(failed(sysctl.to_string(), &sysctl.key, cause))
        })
    }

    /// Writes a parameter's old value back.
    pub(crate) fn restore_sysctl(&self, side: Side, key: &str, value: &str) -> Result<(), Error> {
        let action = format!("sysctl -w {key}={value} {side}");
        self.within(side, || write(key, value))?.map_err(|cause| failed(action, key, cause))
    }
}

/// The value of the parameter at `key` below `/proc/sys`, in the thread's
/// namespace.
pub(crate) fn read(key: &str) -> io::Result<String> {
    std::fs::read_to_string(path(key)).map(|value| value.trim_end().to_owned())
}

/// Whether the kernel has IPv6 (`ipv6.disable=1` takes it away).
pub(crate) fn has_ipv6() -> bool {
    path("net/ipv6").exists()
}

fn set(sysctl: &Sysctl) -> io::Result<Before> {
    if sysctl.of_veth {
        // A new link's parameters have no history worth a read.
        return write(&sysctl.key, &sysctl.value).map(|()| Before::Absent);
    }
    let before = read(&sysctl.key)?;
    if before == sysctl.value {
        return Ok(Before::Same);
    }
    write(&sysctl.key, &sysctl.value).map(|()| Before::Was(before))
}

/// Container runtimes mount `/proc/sys` read-only. There, the node's own may be mounted as well.
fn write(key: &str, value: &str) -> io::Result<()> {
    let write =
        |path: &Path| OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes());
    let mounted = Path::new(OF_NODE).join(key);
    match write(&path(key)) {
        Err(cause) if cause.kind() == io::ErrorKind::ReadOnlyFilesystem && mounted.exists() => {
            write(&mounted)
        }
        written => written,
    }
}

fn path(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(key)
}

fn failed(action: String, key: &str, cause: io::Error) -> Error {
    let hint = match cause.kind() {
        io::ErrorKind::NotFound if key.starts_with("net/ipv6/") => {
            " (is IPv6 switched off in this kernel? use pools of IPv4 only, or boot without \
             ipv6.disable=1)"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            " (make /proc/sys writable for Weir, or mount the node's /proc/sys/net at \
             /host/proc/sys/net)"
        }
        io::ErrorKind::PermissionDenied => " (run as root, with CAP_NET_ADMIN)",
        _ => "",
    };
    Error::Sysctl { action, key: key.to_owned(), cause, hint }
}

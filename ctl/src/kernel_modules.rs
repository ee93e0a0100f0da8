//! Which parts of the kernel Weir needs, and whether this kernel has them.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::LazyLock;

use weir_common::tunnel::{Encapsulation, TunnelKind};

/// The oldest kernel with all that Weir asks of it (README, "Install").
pub const OLDEST_KERNEL: (u32, u32) = (5, 6);

/// The oldest kernel whose checksums are right with tunnels in UDP and NAT together.
const GOOD_CHECKSUMS: (u32, u32) = (5, 8);

/// A part of the kernel that may be built in, a module, or left out.
#[derive(Debug, PartialEq, Eq)]
pub struct KernelModule {
    /// Its module.
    pub name: &'static str,
    /// The option that it is built by.
    option: &'static str,
    /// A function that only it has, as `/proc/kallsyms` lists it.
    symbol: &'static str,
    /// What works only with it; `None` when nothing works without it.
    pub only_for: Option<Cow<'static, str>>,
}

fn module(
    name: &'static str,
    option: &'static str,
    symbol: &'static str,
    only_for: Option<&'static str>,
) -> KernelModule {
    KernelModule { name, option, symbol, only_for: only_for.map(Cow::Borrowed) }
}

/// The module of the tunnels that pools ask for by a field.
fn module_of(kind: TunnelKind) -> KernelModule {
    let row = kind.row();
    let only_for = Some(format!("tunnels ({})", row.mode_field).into());
    KernelModule { only_for, ..module(row.module, row.module_option, row.module_symbol, None) }
}

const SOURCE_CHECK: &str = "the source check (source_check) and NAT (natOutgoing)";
const NAT: &str = "NAT (natOutgoing) and published ports (weirctl docker run)";

/// What Weir's links, tables, tunnels and connections are made of.
pub static KERNEL_MODULES: LazyLock<Vec<KernelModule>> = LazyLock::new(|| {
    let common = [
        module("veth", "CONFIG_VETH", "veth_setup", None),
        module("nf_tables", "CONFIG_NF_TABLES", "nf_tables_newtable", Some(SOURCE_CHECK)),
        module(
            "nft_fib_inet",
            "CONFIG_NFT_FIB_INET",
            "nft_fib_inet_eval",
            Some("the source check (source_check)"),
        ),
        module("nft_chain_nat", "CONFIG_NFT_NAT", "nft_nat_do_chain", Some(NAT)),
        module("nft_ct", "CONFIG_NFT_CT", "nft_ct_get_eval", Some(NAT)),
        module("nft_masq", "CONFIG_NFT_MASQ", "nft_masq_eval", Some(NAT)),
        module(
            "nf_conntrack_netlink",
            "CONFIG_NF_CT_NETLINK",
            "ctnetlink_get_conntrack",
            Some("forgetting the connections of released addresses"),
        ),
    ];
    common.into_iter().chain(TunnelKind::of_modes().map(module_of)).collect()
});

/// Whether a kernel has a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleState {
    /// Built in, loaded, or there to be loaded.
    Present,
    /// Certainly not.
    Missing,
    /// Nothing on this machine says so or otherwise.
    Unknown,
}

/// What a machine says of its kernel's modules.
#[derive(Debug, Default)]
pub struct ModuleFacts {
    /// Modules that are loaded, built in, or in the directory of loadable ones.
    modules: BTreeSet<String>,
    /// Options that the kernel was built with.
    options: BTreeSet<String>,
    /// Functions that the kernel has now.
    symbols: BTreeSet<String>,
    /// Whether what is nowhere above is missing.
    is_complete: bool,
}

impl ModuleFacts {
    /// Reads the facts of a kernel of this `release`: `read` answers the text of a file that
    /// is there. `configuration` is the file of the kernel's options, where someone names one;
    /// else it is looked for as calicoctl does (`commands/node/checksystem.go`).
    pub fn read(
        release: &str,
        configuration: Option<&str>,
        read: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let loaded = read("/proc/modules");
        // A kernel that loads no modules has not even that file.
        let is_whole = loaded.is_none();
        let loaded = loaded.unwrap_or_default();
        let loaded = loaded.lines().filter_map(|line| line.split(' ').next());
        let mut modules = loaded.map(plain).collect::<BTreeSet<_>>();
        let lists =
            ["dep", "builtin"].map(|list| read(&format!("/lib/modules/{release}/modules.{list}")));
        modules.extend(lists.iter().flatten().flat_map(|list| list.lines()).filter_map(of_path));
        let places = [
            format!("/boot/config-{release}"),
            format!("/lib/modules/{release}/build/.config"),
            format!("/usr/src/linux-headers-{release}/.config"),
        ];
        let options = match configuration {
            Some(file) => read(file),
            None => places.iter().find_map(|file| read(file)),
        };
        let is_set = |line: &str| {
            let (option, value) = line.split_once('=')?;
            ["y", "m"].contains(&value).then(|| option.to_owned())
        };
        let is_complete = options.is_some() || lists.iter().all(Option::is_some);
        let symbols = (!is_complete).then(|| read("/proc/kallsyms")).flatten();
        let is_complete = is_complete || is_whole && symbols.is_some();
        let symbols = symbols.map(|text| symbols_in(&text)).unwrap_or_default();
        let options = options.iter().flat_map(|text| text.lines()).filter_map(is_set).collect();
        Self { modules, options, symbols, is_complete }
    }

    /// Whether the kernel has this module.
    pub fn state(&self, module: &KernelModule) -> ModuleState {
        let is_present = self.modules.contains(module.name)
            || self.options.contains(module.option)
            || self.symbols.contains(module.symbol);
        match (is_present, self.is_complete) {
            (true, _) => ModuleState::Present,
            (false, true) => ModuleState::Missing,
            (false, false) => ModuleState::Unknown,
        }
    }
}

/// Whether a kernel of this release is new enough. One whose numbers cannot be read is.
pub fn is_new_enough(release: &str) -> bool {
    numbers(release).is_none_or(|numbers| numbers >= OLDEST_KERNEL)
}

/// What to know of these tunnels under a kernel of this release, for each of those in UDP: older ones
/// leave a wrong checksum in some packets that they wrap after NAT (Calico's issues 3145 and 4865;
/// its Felix switches the offload off up to 5.7).
pub fn checksum_notes(
    release: &str,
    tunnels: impl IntoIterator<Item = TunnelKind>,
) -> impl Iterator<Item = String> {
    let is_old = numbers(release).is_some_and(|numbers| numbers < GOOD_CHECKSUMS);
    let concerned = tunnels.into_iter().filter(move |kind| {
        is_old && matches!(kind.row().encapsulation, Encapsulation::Udp { .. })
    });
    concerned.map(|kind| {
        format!(
            "this kernel is older than {}.{} and may leave wrong checksums in what goes through \
             {device} after NAT, so that connections stall; if they do: ethtool -K {device} tx off",
            GOOD_CHECKSUMS.0,
            GOOD_CHECKSUMS.1,
            device = kind.device()
        )
    })
}

fn numbers(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-', '+']).map(|it| it.parse::<u32>().ok());
    numbers.next()?.zip(numbers.next()?)
}

/// A module's name in the spelling of `/proc/modules`.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

/// The module of a line of `modules.dep` or `modules.builtin`.
fn of_path(line: &str) -> Option<String> {
    let path = line.split(':').next()?;
    let file = path.rsplit('/').next()?;
    file.split_once(".ko").map(|(name, _)| plain(name))
}

/// Those functions in this text of `/proc/kallsyms` that tell of a module.
fn symbols_in(text: &str) -> BTreeSet<String> {
    let wanted: BTreeSet<_> = KERNEL_MODULES.iter().map(|module| module.symbol).collect();
    let names = text.lines().filter_map(|line| line.split_whitespace().nth(2));
    names.filter(|name| wanted.contains(name)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(files: &[(&str, &str)]) -> Vec<(&'static str, ModuleState)> {
        let read = |path: &str| {
            let found = files.iter().find(|(name, _)| *name == path);
            found.map(|(_, text)| (*text).to_owned())
        };
        let facts = ModuleFacts::read("6.1.0", None, read);
        KERNEL_MODULES.iter().map(|module| (module.name, facts.state(module))).collect()
    }

    fn of(name: &str, files: &[(&str, &str)]) -> ModuleState {
        states(files).into_iter().find(|(module, _)| *module == name).unwrap().1
    }

    #[test]
    fn a_module_is_found_wherever_the_machine_tells_of_it() {
        let dep = ("/lib/modules/6.1.0/modules.dep", "kernel/net/ipv4/ipip.ko.xz: kernel/x.ko\n");
        let builtin = ("/lib/modules/6.1.0/modules.builtin", "kernel/drivers/net/veth.ko\n");
        let loaded = ("/proc/modules", "nf_tables 1 0 - Live 0x0\nnf-conntrack-netlink 1\n");
        let all = [dep, builtin, loaded];
        for name in ["ipip", "veth", "nf_tables", "nf_conntrack_netlink"] {
            assert_eq!(of(name, &all), ModuleState::Present, "{name}");
        }
        assert_eq!(of("nft_masq", &all), ModuleState::Missing);
        let options = ("/boot/config-6.1.0", "# CONFIG_VETH is not set\nCONFIG_NET_IPIP=m\n");
        assert_eq!(of("ipip", &[options]), ModuleState::Present);
        assert_eq!(of("veth", &[options]), ModuleState::Missing);
    }

    #[test]
    fn what_no_file_tells_is_unknown() {
        assert!(states(&[]).iter().all(|(_, state)| *state == ModuleState::Unknown));
        let symbols = ("/proc/kallsyms", "0000 t veth_setup\n0000 t ipip_tunnel_setup\t[ipip]\n");
        assert_eq!(of("veth", &[symbols]), ModuleState::Present);
        assert_eq!(of("ipip", &[symbols]), ModuleState::Present);
        assert_eq!(of("nft_ct", &[symbols]), ModuleState::Missing, "it can load none");
        let modules = ("/proc/modules", "");
        assert_eq!(of("nft_ct", &[symbols, modules]), ModuleState::Unknown);
    }

    #[test]
    fn every_kind_of_tunnel_has_its_module() {
        for kind in TunnelKind::ALL {
            let is_its = |module: &KernelModule| module.name == kind.row().module;
            let module = KERNEL_MODULES.iter().find(|it| is_its(it)).unwrap();
            assert!(module.only_for.as_deref().unwrap().contains(kind.row().mode_field), "{kind}");
        }
    }

    #[test]
    fn checksums_are_a_matter_of_old_kernels_and_vxlan() {
        let notes = |release| checksum_notes(release, TunnelKind::ALL).collect::<Vec<_>>();
        let old = notes("5.7.19-x");
        assert_eq!(old.len(), 2, "{old:?}");
        assert!(old[0].contains("ethtool -K vxlan.calico tx off"), "{old:?}");
        for release in ["5.8.0", "6.1.0", "x"] {
            assert_eq!(notes(release), [""; 0], "{release}");
        }
    }

    #[test]
    fn releases_are_compared_by_their_numbers() {
        for (release, new) in [("5.6.0", true), ("5.5.19", false), ("6.18.4-x", true), ("x", true)]
        {
            assert_eq!(is_new_enough(release), new, "{release}");
        }
    }
}

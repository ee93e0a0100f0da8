//! Under which names the driver is there for dockerd.

/// A driver as dockerd knows it: by its socket's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// `weir`: networks and addresses.
    Weir,
    /// `calico`: the networks of Calico's driver (libnetwork-plugin).
    Calico,
    /// `calico-ipam`: its addresses.
    CalicoIpam,
}

/// What a driver does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PluginInterface {
    /// `NetworkDriver`
    Network,
    /// `IpamDriver`
    Ipam,
}

impl Front {
    /// The name for `--driver` and `--ipam-driver`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Weir => "weir",
            Self::Calico => "calico",
            Self::CalicoIpam => "calico-ipam",
        }
    }

    /// The front of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::Weir, Self::Calico, Self::CalicoIpam].into_iter().find(|it| it.name() == name)
    }

    /// What it does.
    pub fn interfaces(self) -> &'static [PluginInterface] {
        match self {
            Self::Weir => &[PluginInterface::Network, PluginInterface::Ipam],
            Self::Calico => &[PluginInterface::Network],
            Self::CalicoIpam => &[PluginInterface::Ipam],
        }
    }

    /// Whether it answers as Calico's driver where that differs and is no worse.
    pub fn is_calicos(self) -> bool {
        self != Self::Weir
    }

    /// How interfaces in containers are called; dockerd adds a number. Calico's default is
    /// `cali` (`CALICO_LIBNETWORK_IFPREFIX`).
    pub fn interface_prefix(self) -> &'static str {
        if self.is_calicos() { "cali" } else { "eth" }
    }
}

impl PluginInterface {
    /// Its name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Network => "NetworkDriver",
            Self::Ipam => "IpamDriver",
        }
    }
}

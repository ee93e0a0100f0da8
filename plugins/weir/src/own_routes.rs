//! Which routes of a result the main plugin made, so that CHECK looks at no others.

use weir_common::cni::{CniRoute, IpamConfiguration};

/// IPAM plugins that answer with the routes of their configuration, all of them and no
/// others.
const GIVING_CONFIGURED_ROUTES: [&str; 3] = ["weir-ipam", "host-local", "static"];

/// The routes that CHECK looks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnRoutes {
    /// Those of the IPAM plugin's result.
    pub routes: Vec<CniRoute>,
    /// Whether each family got a default route besides them.
    pub default_routes: bool,
}

/// Of the routes that a result of ADD lists, those that `weir` surely made.
///
/// A result does not say whose a route is, and later plugins of the chain may have
/// added theirs (spec: "CHECK"). So a route counts if the IPAM configuration has one to
/// the same destination; those that the configuration does not tell of, as of a lease,
/// cannot be told from a later plugin's. The default routes count unless the IPAM plugin
/// gave routes; where it is unknown whether it did, a result with routes says nothing.
pub fn own_routes(
    ipam: &IpamConfiguration,
    include_default_routes: bool,
    listed: &[CniRoute],
) -> OwnRoutes {
    let is_listed = |route: &&CniRoute| listed.iter().any(|it| it.dst.trunc() == route.dst.trunc());
    let gave_none = if GIVING_CONFIGURED_ROUTES.contains(&ipam.plugin.as_str()) {
        ipam.routes.is_empty()
    } else {
        listed.is_empty()
    };
    OwnRoutes {
        routes: ipam.routes.iter().filter(is_listed).cloned().collect(),
        default_routes: gave_none || include_default_routes,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn routes(destinations: &[&str]) -> Vec<CniRoute> {
        let routes = destinations.iter().map(|it| json!({"dst": it})).collect();
        serde_json::from_value(routes).unwrap()
    }

    fn own(plugin: &str, configured: &[&str], listed: &[&str]) -> (Vec<String>, bool) {
        let ipam = IpamConfiguration {
            plugin: plugin.to_owned(),
            wants: Vec::new(),
            gateways: Vec::new(),
            routes: routes(configured),
            lock_file: None,
        };
        let OwnRoutes { routes, default_routes } = own_routes(&ipam, false, &routes(listed));
        (routes.iter().map(|route| route.dst.to_string()).collect(), default_routes)
    }

    #[test]
    fn what_a_later_plugin_added_does_not_count() {
        let (one, other) = ("10.1.0.0/16", "10.2.0.0/16");
        let one_alone = vec![one.to_owned()];
        for plugin in GIVING_CONFIGURED_ROUTES {
            assert_eq!(own(plugin, &[one], &[one, other]), (one_alone.clone(), false));
            assert_eq!(own(plugin, &[], &[other]), (vec![], true));
        }
        assert_eq!(own("dhcp", &[one], &[one, other]), (one_alone, false));
        assert_eq!(own("dhcp", &[], &[other]), (vec![], false), "the lease may have had it");
        assert_eq!(own("dhcp", &[], &[]), (vec![], true));
        // A later plugin took it away, with the right to.
        assert_eq!(own("static", &[one, other], &[one]).0, [one]);
    }
}

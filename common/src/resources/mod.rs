//! Pools, nodes, reservations and IPAM configuration.

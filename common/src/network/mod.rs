//! Which links, addresses, routes and NAT an attachment or a node should have.

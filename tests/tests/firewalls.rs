//! Firewalls of other programs that drop what the node forwards: STATUS and `weirctl node status`
//! name them, and fall silent once containers are let through.

use serde_json::Value;
use weir_tests::{Answer, Call, Cluster, Container, Families, Network, Place, address};

const LIMITED_CONNECTIVITY: u64 = 51;

struct World {
    // The node's way out.
    _network: Network,
    cluster: Cluster,
    containers: [Container; 2],
    addresses: [String; 2],
    call: Call,
}

impl World {
    fn new() -> Self {
        let network = Network::new();
        let cluster = Cluster::embedded_on(network.node(1)).with_pools(Families::V4);
        let containers = ["one", "two"].map(|name| cluster.node.container(name));
        let addresses = containers.each_ref().map(|container| {
            let result = cluster.weir(Families::V4, container).add(&cluster.node);
            address(&result, 0).to_owned()
        });
        let call = cluster.weir(Families::V4, &containers[0]);
        let world = Self { _network: network, cluster, containers, addresses, call };
        assert!(world.passes());
        world.is_silent();
        world
    }

    /// Whether the containers reach each other.
    fn passes(&self) -> bool {
        self.containers[0].reaches(&self.addresses[1])
    }

    fn status(&self) -> Answer {
        let call = self.call.clone().configure("/cniVersion", "1.1.0".into());
        let nothing = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"];
        let call = nothing.iter().fold(call, |call, variable| call.with(variable, ""));
        call.run(&self.cluster.node, "STATUS")
    }

    fn is_silent(&self) {
        self.status().silence();
    }

    /// What `weirctl node status` lists under this key.
    fn listed(&self, key: &str) -> String {
        let answer = self.cluster.weirctl(&["node", "status", "--node", "n1", "-o", "json"]);
        let document: Value = serde_json::from_str(&answer.stdout)
            .unwrap_or_else(|error| panic!("{error}: {answer:?}"));
        document[key].to_string()
    }

    fn run(&self, lines: &[&str]) {
        for line in lines {
            self.cluster.node.run(&line.split(' ').collect::<Vec<_>>());
        }
    }

    fn nft(&self, ruleset: &str) {
        self.cluster.node.run_with(&["nft", "-f", "-"], ruleset);
    }

    /// Containers are cut off, which both commands say with these words.
    fn is_cut_off(&self, words: &[&str]) {
        assert!(!self.passes());
        self.status().failure().expect(LIMITED_CONNECTIVITY, words);
        let problems = self.listed("problems");
        assert!(words.iter().all(|word| problems.contains(word)), "{words:?}: {problems}");
    }

    /// They are not, and all that comes and goes by host ends is accepted: nothing is told.
    fn is_well(&self) {
        assert!(self.passes());
        self.is_silent();
        assert_eq!((self.listed("problems"), self.listed("notes")), ("[]".into(), "[]".into()));
    }

    /// They are not, and what may drop packets is told by `weirctl node status` alone.
    fn is_let_through(&self, words: &[&str]) {
        assert!(self.passes());
        self.is_silent();
        let (problems, notes) = (self.listed("problems"), self.listed("notes"));
        assert!(!problems.contains("firewall"), "{problems}");
        assert!(words.iter().all(|word| notes.contains(word)), "{words:?}: {notes}");
    }
}

#[test]
fn a_chain_with_a_policy_to_drop() {
    let world = World::new();
    world.nft(
        "table inet fw { chain forwarding { type filter hook forward priority 0; policy drop; }; }",
    );
    world.is_cut_off(&["chain forwarding", "table inet fw", "nft insert rule inet fw forwarding"]);
    // What the message says.
    world.nft("insert rule inet fw forwarding iifname \"weir*\" accept");
    world.is_let_through(&["chain forwarding", "table inet fw"]);
    world.nft("insert rule inet fw forwarding oifname \"weir*\" accept");
    world.is_well();
    // Rules that accept none.
    world.nft(
        "flush chain inet fw forwarding; add rule inet fw forwarding ip protocol icmp counter drop",
    );
    world.is_cut_off(&["chain forwarding"]);
}

#[test]
fn iptables_with_a_policy_to_drop() {
    let world = World::new();
    world.run(&["iptables -P FORWARD DROP"]);
    world.is_cut_off(&["chain FORWARD", "table ip filter", "iptables -I FORWARD -i weir+"]);
    let lines =
        ["iptables -I FORWARD -i weir+ -j ACCEPT", "iptables -I FORWARD -o weir+ -j ACCEPT"];
    world.run(&lines);
    world.is_well();
    // The other IP version's is of no concern.
    world.run(&["iptables -P FORWARD ACCEPT", "ip6tables -P FORWARD DROP"]);
    assert!(world.passes());
    world.is_silent();
    assert_eq!(world.listed("notes"), "[]");
}

/// Docker accepts what comes and goes by its own bridges.
#[test]
fn dockers_chains() {
    let world = World::new();
    world.run(&[
        "iptables -P FORWARD DROP",
        "iptables -N DOCKER-USER",
        "iptables -N DOCKER-FORWARD",
        "iptables -A FORWARD -j DOCKER-USER",
        "iptables -A FORWARD -j DOCKER-FORWARD",
        "iptables -A DOCKER-USER -j RETURN",
        "iptables -A DOCKER-FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "iptables -A DOCKER-FORWARD -i docker0 ! -o docker0 -j ACCEPT",
        "iptables -A DOCKER-FORWARD -i br-0123456789ab -j ACCEPT",
    ]);
    world.is_cut_off(&["chain FORWARD", "table ip filter", "firewall"]);
    // What the CNI plugin firewall adds.
    world.run(&["iptables -N CNI-FORWARD", "iptables -I FORWARD -j CNI-FORWARD"]);
    for address in &world.addresses {
        for direction in ["-s", "-d"] {
            world.run(&[&format!("iptables -A CNI-FORWARD {direction} {address} -j ACCEPT")]);
        }
    }
    world.is_let_through(&["chain FORWARD"]);
    // The jump that the driver for Docker makes.
    world.run(&[
        "iptables -N WEIR-DOCKER",
        "iptables -A WEIR-DOCKER -i weir+ -o docker0 -j RETURN",
        "iptables -A WEIR-DOCKER -i weir+ -j ACCEPT",
        "iptables -A WEIR-DOCKER -o weir+ -j ACCEPT",
        "iptables -I DOCKER-USER 1 -m comment --comment weir -j WEIR-DOCKER",
    ]);
    world.is_well();
    world.run(&["iptables -D FORWARD -j CNI-FORWARD"]);
    world.is_well();
}

/// firewalld's policy is to accept, and its last rule rejects.
#[test]
fn a_last_rule_that_rejects() {
    let world = World::new();
    world.nft(
        "table inet firewalld {
           chain filter_FORWARD { type filter hook forward priority 10; policy accept;
             iifname \"docker0\" jump zones; reject with icmpx admin-prohibited; };
           chain zones { accept; }; }",
    );
    world.is_cut_off(&["chain filter_FORWARD", "table inet firewalld"]);
    world.nft("insert rule inet firewalld filter_FORWARD ct status dnat accept");
    assert!(!world.passes(), "may, but does not");
    world.is_silent();
    assert!(world.listed("notes").contains("filter_FORWARD"));
}

/// Early out of a chain of the hook itself, its policy is what counts.
#[test]
fn rules_that_leave_a_chain_early_for_a_policy_to_accept() {
    let world = World::new();
    world.nft(
        "table inet fw { chain other { counter; };
           chain forwarding { type filter hook forward priority 0; policy accept; drop; }; }",
    );
    world.is_cut_off(&["chain forwarding"]);
    for early in ["return", "goto other"] {
        world.nft(&format!("insert rule inet fw forwarding ip saddr 10.7.0.0/16 {early}"));
        world.is_let_through(&["chain forwarding", "table inet fw"]);
        world.nft("flush chain inet fw forwarding; add rule inet fw forwarding drop");
    }
    world.is_cut_off(&["chain forwarding"]);
}

#[test]
fn tables_that_are_switched_off_and_other_hooks_are_no_trouble() {
    let world = World::new();
    world.nft(
        "table inet off { flags dormant;
           chain forwarding { type filter hook forward priority 0; policy drop; }; }
         table inet input { chain in { type filter hook input priority 0; policy drop;
           ct state established accept; }; }",
    );
    assert!(world.passes());
    world.is_silent();
    assert_eq!(world.listed("notes"), "[]");
}

#[test]
fn policy_rules_that_may_send_answers_elsewhere() {
    let world = World::new();
    world.run(&["ip rule add from 10.7.0.0/16 lookup 7 priority 100"]);
    assert_eq!(world.listed("notes"), "[]", "the table is empty");
    world.run(&["ip route add default via 172.30.0.1 table 7"]);
    assert!(!world.passes());
    let notes = world.listed("notes");
    for word in ["rule 100", "10.7.0.0/16", "table 7"] {
        assert!(notes.contains(word), "{word}: {notes}");
    }
    // What the note says.
    world.run(&["ip rule add to 10.7.0.0/24 lookup main priority 99"]);
    assert!(world.passes());
}

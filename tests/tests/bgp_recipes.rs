//! The recipes of `docs/bgp.md`, run as they stand there: the resources, the commands and the
//! routers' configurations.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use weir_tests::{Fleet, Pod, Speaker, Subnet};

/// The text of a recipe.
struct Recipe(String);

impl Recipe {
    /// The one with this title.
    fn titled(title: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bgp.md");
        let document = fs::read_to_string(path).expect("docs/bgp.md");
        let sections = document.split("\n## ");
        let mut named = sections.filter(|section| section.starts_with(title));
        Self(named.next().unwrap_or_else(|| panic!("no recipe {title}")).to_owned())
    }

    /// Its only block in this language.
    fn block(&self, language: &str) -> &str {
        let begin = format!("```{language}\n");
        let (_, rest) = self.0.split_once(&begin).unwrap_or_else(|| panic!("no {language} block"));
        rest.split_once("```").expect("a block ends").0
    }

    /// Applies its resources.
    fn apply(&self, fleet: &Fleet) {
        fleet.members[0].node().write("/run/recipe.yaml", self.block("yaml"));
        let answer = fleet.weirctl(0, &["apply", "-f", "/run/recipe.yaml"]);
        assert!(answer.succeeded, "{answer:?}");
    }

    /// Runs its commands on the first node, those that look at sessions as often as it takes
    /// until these are up.
    fn run(&self, fleet: &Fleet) {
        for line in self.block("sh").lines() {
            let run = || {
                let words = shell_words(line.strip_prefix("weirctl ").expect("a weirctl command"));
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                fleet.weirctl(0, &words)
            };
            if line == "weirctl bgp peers" {
                fleet.until(line, || run().succeeded);
            } else {
                let answer = run();
                assert!(answer.succeeded, "{line}: {answer:?}");
            }
        }
    }
}

/// The words of a command line that has no quotes but single ones.
fn shell_words(line: &str) -> Vec<String> {
    let (mut words, mut is_quoted) = (vec![String::new()], false);
    for character in line.chars() {
        match character {
            '\'' => is_quoted = !is_quoted,
            ' ' if !is_quoted => words.push(String::new()),
            other => words.last_mut().expect("there is always one").push(other),
        }
    }
    words
}

/// Four nodes, two in each of two subnets, that have the labels of the recipes.
fn labelled() -> Fleet {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::First, Subnet::Second, Subnet::Second]);
    fleet.apply_pool("direct", json!({"cidr": "10.1.0.0/16", "ipipMode": "Never"}));
    fleet.start_agents();
    for (node, subnet) in [("n1", "1"), ("n2", "1"), ("n3", "2"), ("n4", "2")] {
        let answer = fleet.weirctl(0, &["label", "node", node, &format!("subnet={subnet}")]);
        assert!(answer.succeeded, "{answer:?}");
    }
    fleet
}

/// Containers of all nodes reach each other.
fn all_reach_each_other(fleet: &Fleet) -> Vec<Pod> {
    let pods: Vec<Pod> = (0..4).map(|member| fleet.pod(member, "direct")).collect();
    for from in &pods {
        for to in pods.iter().filter(|to| to.address != from.address) {
            fleet.until_reached(from, to);
        }
    }
    pods
}

fn established(fleet: &Fleet, member: usize) -> Vec<String> {
    let answer = fleet.weirctl(member, &["bgp", "peers", "-o", "json"]);
    let status: Value = serde_json::from_str(&answer.stdout).unwrap_or_default();
    let sessions = status["sessions"].as_array().cloned().unwrap_or_default();
    let up = sessions.iter().filter(|session| session["bgpState"] == "Established");
    up.map(|session| session["peer"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_mesh_across_two_subnets() {
    let recipe = Recipe::titled("Recipe 1");
    let fleet = labelled();
    let _router = Speaker::bird(fleet.underlay.router(), recipe.block("bird"));
    recipe.apply(&fleet);
    let pods = all_reach_each_other(&fleet);
    fleet.until("n1 has its sessions", || {
        established(&fleet, 0).len() == 4 && fleet.weirctl(0, &["bgp", "peers"]).succeeded
    });
    drop(pods);
}

#[test]
fn route_reflectors() {
    let (mesh, recipe) = (Recipe::titled("Recipe 1"), Recipe::titled("Recipe 2"));
    let fleet = labelled();
    let _router = Speaker::bird(fleet.underlay.router(), mesh.block("bird"));
    mesh.apply(&fleet);
    let pods = all_reach_each_other(&fleet);
    recipe.apply(&fleet);
    recipe.run(&fleet);
    // n4 speaks to both reflectors and to its router, and to no other node.
    let wanted = ["172.31.1.11", "172.31.1.12", "172.31.2.1"];
    fleet.until("n4 has its three sessions", || {
        let mut peers = established(&fleet, 3);
        peers.sort();
        peers == wanted
    });
    for from in &pods {
        for to in pods.iter().filter(|to| to.address != from.address) {
            fleet.until_reached(from, to);
        }
    }
}

#[test]
fn top_of_rack_routers() {
    let recipe = Recipe::titled("Recipe 3");
    let fleet = labelled();
    let _router = Speaker::frr(fleet.underlay.router(), recipe.block("frr"));
    recipe.apply(&fleet);
    let _pods = all_reach_each_other(&fleet);
    fleet.until("n1 speaks to its router alone", || established(&fleet, 0) == ["172.31.1.1"]);
}

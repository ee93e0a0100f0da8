//! Docker's firewall lets Weir's containers through.
//!
//! With its defaults dockerd sets the policy of FORWARD to DROP and accepts what comes and goes
//! by its own bridges. What others want is for the chain DOCKER-USER, which dockerd makes and
//! then leaves alone. Weir has one rule in it, a jump to WEIR-DOCKER. It stands behind the rules
//! of users, which so hold for Weir's containers too, and is there as long as a network of Weir's
//! is. Without DOCKER-USER (`--iptables=false`) nothing is done.
//!
//! Between Weir's containers and Docker's bridges Docker's own rules decide, which keep what is
//! not published, and networks that are `--internal`, closed.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;
use weir_kernel::{find_program, run_program};

use super::driver::Driver;

/// What dockerd runs for each IP version.
const PROGRAMS: [&str; 2] = ["iptables", "ip6tables"];

/// How long a program may take, and how long of that it may wait for others, in seconds.
const LONGEST: Duration = Duration::from_secs(10);
const LOCK_TIME: &str = "5";

/// How often the rules are looked at when nothing happens: another program (firewalld) may
/// replace them, and users add theirs.
const PERIOD: Duration = Duration::from_secs(15);

const DOCKERS: &str = "DOCKER-USER";
const WEIRS: &str = "WEIR-DOCKER";
const COMMENT: &str = "lets containers of Weir's networks through (weirctl docker)";

/// How Docker calls its bridges, but for those that users name. What is new is closed before its
/// rules are seen.
const BRIDGES: [&str; 2] = ["docker0", "br-+"];
const BRIDGE_PREFIX: &str = "br-";
const BRIDGE_DIGITS: usize = 12;

/// Where the interfaces of the thread's network namespace are listed.
const INTERFACES: &str = "/proc/thread-self/net/dev";

impl Driver {
    /// Has the rules looked at soon. Many calls at once come to one look; this waits for nothing.
    pub(super) fn ensure_forwarding(&self) {
        self.forwarding.notify_one();
    }

    fn has_networks(&self) -> bool {
        // Where that cannot be known, what there is stays.
        self.networks().map_or(true, |ids| !ids.is_empty())
    }
}

/// Keeps the rules, and those of published ports, as they should be, for ever.
pub async fn keep(driver: Rc<Driver>) {
    let mut told = PROGRAMS.map(|_| None);
    let mut told_of_ports = None;
    loop {
        let failed = driver.mend_ports().await.err();
        if let Some(error) = failed.as_ref().filter(|error| told_of_ports.as_ref() != Some(*error))
        {
            tracing::warn!(%error, "published ports cannot be looked after");
        }
        told_of_ports = failed;
        let are_wanted = driver.has_networks();
        for (program, told) in PROGRAMS.iter().zip(&mut told) {
            let failed = reconcile(program, are_wanted).await.err();
            if let Some(error) = failed.as_ref().filter(|error| told.as_ref() != Some(*error)) {
                tracing::warn!(
                    %error,
                    "Docker's firewall may keep packets from containers; see \"{program} -S\""
                );
            }
            *told = failed;
        }
        // What was asked for meanwhile is done at once.
        let _ = timeout(PERIOD, driver.forwarding.notified()).await;
    }
}

/// Makes the rules of an IP version as they should be. Without the program nobody has rules.
async fn reconcile(program: &str, are_wanted: bool) -> Result<(), String> {
    let Some(path) = find_program(program) else { return Ok(()) };
    let listing = run(&path, &["-w", LOCK_TIME, "-S"], "").await?;
    let rules = FilterRules::read(&listing);
    let changes = match are_wanted {
        true => {
            let interfaces = std::fs::read_to_string(INTERFACES)
                .map_err(|error| format!("{INTERFACES} cannot be read: {error}"))?;
            rules.ensured(&other_bridges(&interfaces))
        }
        false => rules.removed(),
    };
    if changes.is_empty() {
        return Ok(());
    }
    let program = format!("{program}-restore");
    let path = find_program(&program).ok_or_else(|| format!("the program {program} is missing"))?;
    // All of them or none: containers have what they have until then.
    let input = format!("*filter\n{}\nCOMMIT\n", changes.join("\n"));
    run(&path, &["-w", LOCK_TIME, "--noflush"], &input).await?;
    tracing::info!(program, ?changes, "changed Docker's firewall");
    Ok(())
}

/// What the program prints, run with these arguments and this input.
async fn run(program: &Path, arguments: &[&str], input: &str) -> Result<String, String> {
    let told = format!("{} {}", program.display(), arguments.join(" "));
    let mut command = Command::new(program);
    let running = timeout(LONGEST, run_program(command.args(arguments), input));
    let outcome =
        running.await.map_err(|_| format!("{told}: took longer than {} s", LONGEST.as_secs()))?;
    let output = outcome.map_err(|error| format!("{told}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{told}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What there is of the table `filter`, as `iptables -S` prints it.
#[derive(Debug, Default)]
struct FilterRules<'a> {
    has_dockers_chain: bool,
    has_weirs_chain: bool,
    /// The rules of DOCKER-USER, in order.
    users: Vec<&'a str>,
    /// Those of WEIR-DOCKER.
    own: Vec<&'a str>,
    /// The interfaces for which Docker decides what goes to them: its bridges.
    bridges: Vec<&'a str>,
}

impl<'a> FilterRules<'a> {
    fn read(listing: &'a str) -> Self {
        let mut rules = Self::default();
        for line in listing.lines() {
            match line.split_once(' ') {
                Some(("-N", DOCKERS)) => rules.has_dockers_chain = true,
                Some(("-N", WEIRS)) => rules.has_weirs_chain = true,
                Some(("-A", rule)) => match rule.split_once(' ') {
                    Some((DOCKERS, rule)) => rules.users.push(rule),
                    Some((WEIRS, rule)) => rules.own.push(rule),
                    Some((chain, rule)) => rules.bridges.extend(guarded_bridge(chain, rule)),
                    None => {}
                },
                _ => {}
            }
        }
        rules.bridges.sort_unstable();
        rules.bridges.dedup();
        rules
    }

    /// The places of the jumps among the rules of DOCKER-USER, from 1.
    fn jumps(&self) -> Vec<usize> {
        let is_jump = |rule: &str| rule.ends_with(&format!("-j {WEIRS}"));
        let places = self.users.iter().enumerate().filter(|(_, rule)| is_jump(rule));
        places.map(|(place, _)| place + 1).collect()
    }

    /// What makes the rules as they should be, in the form of `iptables-restore`, on a node with
    /// `others`: bridges that are called as Docker's, and are not.
    fn ensured(&self, others: &[&str]) -> Vec<String> {
        if !self.has_dockers_chain {
            return Vec::new();
        }
        let mut commands = Vec::new();
        let wanted = self.wanted(others);
        if !self.has_weirs_chain || self.own != wanted {
            // Makes the chain, or empties it.
            commands.push(format!(":{WEIRS} - [0:0]"));
            commands.extend(wanted.iter().map(|rule| format!("-A {WEIRS} {rule}")));
        }
        commands.extend(self.jump_ensured());
        commands
    }

    /// The rules of WEIR-DOCKER.
    fn wanted(&self, others: &[&str]) -> Vec<String> {
        let both_ways = |bridge: &str, target: &str| {
            [format!("-i weir+ -o {bridge}"), format!("-i {bridge} -o weir+")]
                .map(|rule| format!("{rule} -j {target}"))
        };
        let bridges = self.bridges.iter().filter(|bridge| !BRIDGES.contains(*bridge));
        let others = others.iter().filter(|bridge| !self.bridges.contains(*bridge));
        let mut rules: Vec<String> = Vec::new();
        rules.extend(bridges.flat_map(|bridge| both_ways(bridge, "RETURN")));
        rules.extend(others.flat_map(|bridge| both_ways(bridge, "ACCEPT")));
        rules.extend(BRIDGES.iter().flat_map(|bridge| both_ways(bridge, "RETURN")));
        rules.extend(["-i", "-o"].map(|side| format!("{side} weir+ -j ACCEPT")));
        rules
    }

    /// What makes one jump in DOCKER-USER, the last thing that packets come to.
    fn jump_ensured(&self) -> Vec<String> {
        let jumps = self.jumps();
        let end = self.users.iter().position(|rule| *rule == "-j RETURN");
        // The rule before the end, counted from 1.
        let last = end.unwrap_or(self.users.len());
        let kept = jumps.contains(&last).then_some(last);
        let deleted: Vec<_> = jumps.into_iter().filter(|place| Some(*place) != kept).collect();
        let mut commands = deletions(&deleted);
        if kept.is_none() {
            let before = deleted.iter().filter(|place| **place <= last).count();
            let place = last + 1 - before;
            commands.push(format!(
                "-I {DOCKERS} {place} -m comment --comment \"{COMMENT}\" -j {WEIRS}"
            ));
        }
        commands
    }

    /// What makes nothing of Weir's be there.
    fn removed(&self) -> Vec<String> {
        let mut commands = deletions(&self.jumps());
        if self.has_weirs_chain {
            commands.extend(["-F", "-X"].map(|verb| format!("{verb} {WEIRS}")));
        }
        commands
    }
}

/// What deletes the rules of DOCKER-USER at these places, from the end, so that the others' stay.
fn deletions(places: &[usize]) -> Vec<String> {
    places.iter().rev().map(|place| format!("-D {DOCKERS} {place}")).collect()
}

/// The interface of a rule by which Docker decides what goes to it: that sends it to the list of
/// published ports, or drops it, as it does with what comes to an internal network.
fn guarded_bridge<'a>(chain: &str, rule: &'a str) -> Option<&'a str> {
    let (matched, target) = rule.rsplit_once(" -j ")?;
    // What users drop in chains of their own says nothing of the interface.
    if target != "DOCKER" && (target != "DROP" || !chain.starts_with("DOCKER")) {
        return None;
    }
    let words: Vec<&str> = matched.split(' ').collect();
    let place = words.iter().position(|word| *word == "-o")?;
    let is_negated = place > 0 && words[place - 1] == "!";
    words.get(place + 1).copied().filter(|name| !is_negated && !name.starts_with("weir"))
}

/// The interfaces that are called `br-…`, but not as Docker calls its bridges, among those of
/// `/proc/net/dev`.
fn other_bridges(interfaces: &str) -> Vec<&str> {
    let is_dockers = |rest: &str| {
        rest.len() == BRIDGE_DIGITS && rest.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let names = interfaces.lines().filter_map(|line| Some(line.split_once(':')?.0.trim()));
    let mut others: Vec<_> = names
        .filter(|name| name.strip_prefix(BRIDGE_PREFIX).is_some_and(|rest| !is_dockers(rest)))
        .collect();
    others.sort_unstable();
    others
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As dockerd 20.10 makes them.
    const DOCKERS_RULES: &str = "-P INPUT ACCEPT\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n-N DOCKER\n\
        -N DOCKER-ISOLATION-STAGE-1\n-N DOCKER-ISOLATION-STAGE-2\n-N DOCKER-USER\n\
        -A FORWARD -j DOCKER-USER\n-A FORWARD -j DOCKER-ISOLATION-STAGE-1\n\
        -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
        -A FORWARD -o docker0 -j DOCKER\n-A FORWARD -i docker0 ! -o docker0 -j ACCEPT\n\
        -A DOCKER-USER -s 203.0.113.0/24 -j DROP\n-A DOCKER-USER -j RETURN\n";
    const JUMP: &str = "-A DOCKER-USER -m comment --comment \"c\" -j WEIR-DOCKER\n";

    fn ensured(listing: &str) -> Vec<String> {
        FilterRules::read(listing).ensured(&[])
    }

    fn made_jump(place: usize) -> String {
        format!("-I DOCKER-USER {place} -m comment --comment \"{COMMENT}\" -j WEIR-DOCKER")
    }

    #[test]
    fn the_jump_is_made_behind_the_rules_of_users() {
        let mut expected = vec![":WEIR-DOCKER - [0:0]".to_owned()];
        expected.extend(OWN.lines().map(str::to_owned));
        expected.push(made_jump(2));
        assert_eq!(ensured(DOCKERS_RULES), expected);
    }

    #[test]
    fn nothing_is_done_without_dockers_chain() {
        for listing in ["", "-P FORWARD DROP\n-N DOCKER\n", "-P FORWARD ACCEPT\n-N DOCKER-USERS\n"]
        {
            assert_eq!(ensured(listing), [""; 0]);
            assert_eq!(FilterRules::read(listing).removed(), [""; 0]);
        }
    }

    /// The listing with Weir's rules in it.
    fn with_weirs(docker_user: &str, own: &str) -> String {
        let (before, _) = DOCKERS_RULES.split_once("-A DOCKER-USER").unwrap();
        format!("{before}-N WEIR-DOCKER\n{docker_user}{own}")
    }

    const OWN: &str = "-A WEIR-DOCKER -i weir+ -o docker0 -j RETURN\n\
        -A WEIR-DOCKER -i docker0 -o weir+ -j RETURN\n\
        -A WEIR-DOCKER -i weir+ -o br-+ -j RETURN\n\
        -A WEIR-DOCKER -i br-+ -o weir+ -j RETURN\n\
        -A WEIR-DOCKER -i weir+ -j ACCEPT\n-A WEIR-DOCKER -o weir+ -j ACCEPT\n";

    #[test]
    fn what_is_there_is_left_alone() {
        let users = format!("-A DOCKER-USER -i eth7 -j DROP\n{JUMP}-A DOCKER-USER -j RETURN\n");
        assert_eq!(ensured(&with_weirs(&users, OWN)), [""; 0]);
        // Newer dockerds have no RETURN.
        assert_eq!(ensured(&with_weirs(JUMP, OWN)), [""; 0]);
    }

    #[test]
    fn a_jump_that_is_not_the_last_thing_and_others_than_the_last_are_replaced() {
        let behind = format!("-A DOCKER-USER -j RETURN\n{JUMP}");
        let expected = ["-D DOCKER-USER 2".to_owned(), made_jump(1)];
        assert_eq!(ensured(&with_weirs(&behind, OWN)), expected);
        let twice = format!("{JUMP}-A DOCKER-USER -i eth7 -j DROP\n{JUMP}{JUMP}");
        assert_eq!(ensured(&with_weirs(&twice, OWN)), ["-D DOCKER-USER 3", "-D DOCKER-USER 1"]);
        let none = "-A DOCKER-USER -i eth7 -j DROP\n";
        assert_eq!(ensured(&with_weirs(none, OWN)), [made_jump(2)]);
    }

    /// Of what users add after it nothing would hold.
    #[test]
    fn the_jump_moves_behind_rules_that_users_add() {
        let added = format!("{JUMP}-A DOCKER-USER -i eth7 -j DROP\n");
        let expected = ["-D DOCKER-USER 1".to_owned(), made_jump(2)];
        assert_eq!(ensured(&with_weirs(&added, OWN)), expected);
        let before_end = format!("{added}-A DOCKER-USER -j RETURN\n{JUMP}");
        let expected = ["-D DOCKER-USER 4", "-D DOCKER-USER 1", &made_jump(2)];
        assert_eq!(ensured(&with_weirs(&before_end, OWN)), expected);
    }

    /// The rules of WEIR-DOCKER on a node with these bridges.
    fn wanted(docker: &str, others: &[&str]) -> Vec<String> {
        FilterRules::read(&(DOCKERS_RULES.to_owned() + docker)).wanted(others)
    }

    #[test]
    fn docker_decides_for_bridges_that_users_named_and_for_internal_ones() {
        let published = "-A FORWARD -o shop -j DOCKER\n";
        // As dockerd 20.10 has it of an internal network, and a newer one.
        let internal = "-A DOCKER-ISOLATION-STAGE-1 ! -s 172.18.0.0/16 -o shop -j DROP\n\
            -A DOCKER-ISOLATION-STAGE-1 ! -d 172.18.0.0/16 -i shop -j DROP\n";
        let newer = "-A DOCKER-INTERNAL ! -s 172.18.0.0/16 -o shop -j DROP\n";
        for rules in [published, internal, newer] {
            let rules = wanted(rules, &[]);
            let first = ["-i weir+ -o shop -j RETURN", "-i shop -o weir+ -j RETURN"];
            assert_eq!(rules[..2], first, "{rules:#?}");
            assert_eq!(rules.len(), 8);
        }
        for others in [
            "-A FORWARD -o eth7 -j DROP\n",
            "-A DOCKER -i docker0 ! -o docker1 -j DROP\n",
            "-A DOCKER-ISOLATION-STAGE-2 -o weir0 -j DROP\n",
            "-A DOCKER -o eth7 -j ACCEPT\n",
        ] {
            assert_eq!(wanted(others, &[]).len(), 6, "{others}");
        }
    }

    #[test]
    fn bridges_that_are_only_called_as_dockers_stay_open() {
        let listed = "Inter-|   Receive\n face |bytes\n    lo: 1 2\n  br-ex: 1 2\n\
            br-0123456789ab: 1 2\nbr-lan: 1 2\ndocker0: 1 2\n";
        assert_eq!(other_bridges(listed), ["br-ex", "br-lan"]);
        let rules = wanted("", &["br-ex"]);
        let first = ["-i weir+ -o br-ex -j ACCEPT", "-i br-ex -o weir+ -j ACCEPT"];
        assert_eq!(rules[..2], first, "{rules:#?}");
        // Users may have Docker call its bridge so.
        let named = wanted("-A FORWARD -o br-ex -j DOCKER\n", &["br-ex"]);
        assert_eq!(named[0], "-i weir+ -o br-ex -j RETURN");
        assert_eq!(named.len(), 8);
    }

    #[test]
    fn a_chain_that_is_changed_is_made_again() {
        let expected: Vec<_> = std::iter::once(":WEIR-DOCKER - [0:0]").chain(OWN.lines()).collect();
        let accepting = "-A WEIR-DOCKER -i weir+ -j ACCEPT\n";
        for own in [format!("{accepting}{OWN}"), String::new(), accepting.to_owned()] {
            assert_eq!(ensured(&with_weirs(JUMP, &own)), expected);
        }
    }

    #[test]
    fn everything_is_removed() {
        let users = format!("{JUMP}-A DOCKER-USER -i eth7 -j DROP\n{JUMP}");
        let removed = FilterRules::read(&with_weirs(&users, OWN)).removed();
        let expected = ["-D DOCKER-USER 3", "-D DOCKER-USER 1", "-F WEIR-DOCKER", "-X WEIR-DOCKER"];
        assert_eq!(removed, expected);
        assert_eq!(FilterRules::read(DOCKERS_RULES).removed(), [""; 0]);
    }
}

//! Docker's firewall lets Weir's containers through.
//!
//! With its defaults dockerd sets the policy of FORWARD to DROP and accepts what comes and goes
//! by its own bridges. What others want is for the chain DOCKER-USER, which dockerd makes and
//! then leaves alone. Weir has one rule in it, a jump to WEIR-DOCKER. It stands behind the rules
//! of users, which so hold for Weir's containers too, and is there as long as a network of Weir's
//! is. Without DOCKER-USER (`--iptables=false`) nothing is done.

use std::io;
use std::path::Path;
use std::process::{Output, Stdio};
use std::rc::Rc;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;
use weir_kernel::find_program;

use super::driver::Driver;

/// What dockerd runs for each IP version.
const PROGRAMS: [&str; 2] = ["iptables", "ip6tables"];

/// How long a program may take, and how long of that it may wait for others, in seconds.
const LONGEST: Duration = Duration::from_secs(10);
const LOCK_TIME: &str = "5";

/// How often the rules are looked at when nothing happens: another program (firewalld) may
/// replace them.
const PERIOD: Duration = Duration::from_secs(60);

const DOCKERS: &str = "DOCKER-USER";
const WEIRS: &str = "WEIR-DOCKER";
const COMMENT: &str = "lets containers of Weir's networks through (weirctl docker)";
const FROM_CONTAINERS: &str = "-i weir+ -j ACCEPT";
const TO_CONTAINERS: &str = "-o weir+ -j ACCEPT";

impl Driver {
    /// Has the rules looked at soon. Many calls at once come to one look; this waits for nothing.
    pub(super) fn ensure_forwarding(&self) {
        self.forwarding.notify_one();
    }

    fn has_networks(&self) -> bool {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).any(|it| it.extension().is_some_and(|it| it == "json"))
    }
}

/// Keeps the rules as they should be, for ever.
pub async fn keep(driver: Rc<Driver>) {
    let mut told = PROGRAMS.map(|_| None);
    loop {
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
    let listing = run(&path, &["-S"]).await?;
    let rules = FilterRules::read(&listing);
    for arguments in if are_wanted { rules.ensured() } else { rules.removed() } {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run(&path, &arguments).await?;
        tracing::info!(program, rule = arguments.join(" "), "changed Docker's firewall");
    }
    Ok(())
}

/// What the program prints, run with these arguments.
async fn run(program: &Path, arguments: &[&str]) -> Result<String, String> {
    let told = format!("{} {}", program.display(), arguments.join(" "));
    let mut command = Command::new(program);
    command.args(["-w", LOCK_TIME]).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let outcome: io::Result<Output> = timeout(LONGEST, command.output())
        .await
        .map_err(|_| format!("{told}: took longer than {} s", LONGEST.as_secs()))?;
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
    /// The bridges whose containers Docker keeps what is not published from.
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
                    Some((_, rule)) => rules.bridges.extend(guarded_bridge(rule)),
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

    /// What is to be run for the rules to be as they should.
    fn ensured(&self) -> Vec<Vec<String>> {
        if !self.has_dockers_chain {
            return Vec::new();
        }
        // Docker itself decides what its own containers get.
        let returns: Vec<String> =
            self.bridges.iter().map(|bridge| format!("-i weir+ -o {bridge} -j RETURN")).collect();
        let is_wanted = |rule: &str| {
            [FROM_CONTAINERS, TO_CONTAINERS].contains(&rule) || returns.iter().any(|it| it == rule)
        };
        // From the end, so that the places of others stay.
        let foreign = self.own.iter().enumerate().rev().filter(|(_, rule)| !is_wanted(rule));
        let mut commands: Vec<_> =
            foreign.map(|(place, _)| words(&format!("-D {WEIRS} {}", place + 1))).collect();
        if !self.has_weirs_chain {
            commands.push(words(&format!("-N {WEIRS}")));
        }
        for rule in returns.iter().filter(|rule| !self.own.contains(&rule.as_str())) {
            commands.push(words(&format!("-I {WEIRS} 1 {rule}")));
        }
        for rule in [FROM_CONTAINERS, TO_CONTAINERS] {
            if !self.own.contains(&rule) {
                commands.push(words(&format!("-A {WEIRS} {rule}")));
            }
        }
        commands.extend(self.jump_ensured());
        commands
    }

    /// What makes one jump in DOCKER-USER, the last thing that packets come to.
    fn jump_ensured(&self) -> Vec<Vec<String>> {
        let jumps = self.jumps();
        let end = self.users.iter().position(|rule| *rule == "-j RETURN").map(|place| place + 1);
        let kept = jumps.first().filter(|place| end.is_none_or(|end| **place < end));
        let deleted = jumps.iter().rev().filter(|place| Some(*place) != kept);
        let mut commands: Vec<_> =
            deleted.map(|place| words(&format!("-D {DOCKERS} {place}"))).collect();
        if kept.is_none() {
            // All jumps that there were stood behind the end.
            let place = end.unwrap_or(self.users.len() - jumps.len() + 1);
            let mut command = words(&format!("-I {DOCKERS} {place} -m comment --comment"));
            command.push(COMMENT.to_owned());
            command.extend(words(&format!("-j {WEIRS}")));
            commands.push(command);
        }
        commands
    }

    /// What is to be run for nothing of Weir's to be there.
    fn removed(&self) -> Vec<Vec<String>> {
        let jumps = self.jumps().into_iter().rev();
        let mut commands: Vec<_> =
            jumps.map(|place| words(&format!("-D {DOCKERS} {place}"))).collect();
        if self.has_weirs_chain {
            commands.extend(["-F", "-X"].map(|verb| words(&format!("{verb} {WEIRS}"))));
        }
        commands
    }
}

/// The bridge of a rule that sends what goes to it to Docker's list of published ports.
fn guarded_bridge(rule: &str) -> Option<&str> {
    rule.strip_prefix("-o ")?.strip_suffix(" -j DOCKER").filter(|name| !name.contains(' '))
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
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

    fn lines(commands: Vec<Vec<String>>) -> Vec<String> {
        commands.iter().map(|command| command.join(" ")).collect()
    }

    fn ensured(listing: &str) -> Vec<String> {
        lines(FilterRules::read(listing).ensured())
    }

    #[test]
    fn the_jump_is_made_behind_the_rules_of_users() {
        let expected = [
            "-N WEIR-DOCKER".to_owned(),
            "-I WEIR-DOCKER 1 -i weir+ -o docker0 -j RETURN".to_owned(),
            "-A WEIR-DOCKER -i weir+ -j ACCEPT".to_owned(),
            "-A WEIR-DOCKER -o weir+ -j ACCEPT".to_owned(),
            format!("-I DOCKER-USER 2 -m comment --comment {COMMENT} -j WEIR-DOCKER"),
        ];
        assert_eq!(ensured(DOCKERS_RULES), expected);
        // The comment is one argument.
        let rules = FilterRules::read(DOCKERS_RULES).ensured();
        assert!(rules[4].contains(&COMMENT.to_owned()));
    }

    #[test]
    fn nothing_is_done_without_dockers_chain() {
        for listing in ["", "-P FORWARD DROP\n-N DOCKER\n", "-P FORWARD ACCEPT\n-N DOCKER-USERS\n"]
        {
            assert_eq!(ensured(listing), [""; 0]);
            assert_eq!(lines(FilterRules::read(listing).removed()), [""; 0]);
        }
    }

    /// The listing with Weir's rules in it.
    fn with_weirs(docker_user: &str, own: &str) -> String {
        let (before, _) = DOCKERS_RULES.split_once("-A DOCKER-USER").unwrap();
        format!("{before}-N WEIR-DOCKER\n{docker_user}{own}")
    }

    const OWN: &str = "-A WEIR-DOCKER -i weir+ -o docker0 -j RETURN\n\
        -A WEIR-DOCKER -i weir+ -j ACCEPT\n-A WEIR-DOCKER -o weir+ -j ACCEPT\n";

    #[test]
    fn what_is_there_is_left_alone() {
        let users = format!("-A DOCKER-USER -i eth7 -j DROP\n{JUMP}-A DOCKER-USER -j RETURN\n");
        assert_eq!(ensured(&with_weirs(&users, OWN)), [""; 0]);
        // Newer dockerds have no RETURN.
        assert_eq!(ensured(&with_weirs(JUMP, OWN)), [""; 0]);
    }

    #[test]
    fn a_jump_that_nothing_comes_to_and_others_than_the_first_are_replaced() {
        let made =
            |place| format!("-I DOCKER-USER {place} -m comment --comment {COMMENT} -j WEIR-DOCKER");
        let behind = format!("-A DOCKER-USER -j RETURN\n{JUMP}");
        let expected = ["-D DOCKER-USER 2".to_owned(), made(1)];
        assert_eq!(ensured(&with_weirs(&behind, OWN)), expected);
        let twice = format!("{JUMP}-A DOCKER-USER -i eth7 -j DROP\n{JUMP}{JUMP}");
        assert_eq!(ensured(&with_weirs(&twice, OWN)), ["-D DOCKER-USER 4", "-D DOCKER-USER 3"]);
        let none = "-A DOCKER-USER -i eth7 -j DROP\n";
        assert_eq!(ensured(&with_weirs(none, OWN)), [made(2)]);
    }

    #[test]
    fn the_chain_follows_dockers_bridges() {
        let more = "-A FORWARD -o br-0123456789ab -j DOCKER\n";
        let listing = with_weirs(JUMP, OWN) + more;
        let expected = ["-I WEIR-DOCKER 1 -i weir+ -o br-0123456789ab -j RETURN"];
        assert_eq!(ensured(&listing), expected);
        let foreign = "-A WEIR-DOCKER -i weir+ -o br-ffffffffffff -j RETURN\n";
        let listing = with_weirs(JUMP, &format!("{foreign}{OWN}-A WEIR-DOCKER -j DROP\n"));
        assert_eq!(ensured(&listing), ["-D WEIR-DOCKER 5", "-D WEIR-DOCKER 1"]);
    }

    #[test]
    fn everything_is_removed() {
        let users = format!("{JUMP}-A DOCKER-USER -i eth7 -j DROP\n{JUMP}");
        let removed = lines(FilterRules::read(&with_weirs(&users, OWN)).removed());
        let expected = ["-D DOCKER-USER 3", "-D DOCKER-USER 1", "-F WEIR-DOCKER", "-X WEIR-DOCKER"];
        assert_eq!(removed, expected);
        assert_eq!(lines(FilterRules::read(DOCKERS_RULES).removed()), [""; 0]);
    }
}

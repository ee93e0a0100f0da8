//! weirctl on a real terminal: paging, colour, room and progress.

use std::cell::Cell;
use std::time::{Duration, Instant};

use weir_tests::{Cluster, Place, binaries, recorded_store};

/// How long something may take to appear on the screen.
const PATIENCE: Duration = Duration::from_secs(120);

/// Bold type and red, as tmux passes them on.
const BOLD: &str = "\u{1b}[1m";
const RED: &str = "\u{1b}[31m";

/// A shell on a terminal of this size, kept by a tmux on the cluster's node.
struct Terminal<'a> {
    cluster: &'a Cluster,
    name: &'a str,
    lines: Cell<u32>,
}

impl<'a> Terminal<'a> {
    fn open(cluster: &'a Cluster, name: &'a str, width: u32, height: u32) -> Self {
        let terminal = Self { cluster, name, lines: Cell::new(0) };
        let (width, height) = (width.to_string(), height.to_string());
        let path = format!("{}:/usr/bin:/bin", binaries().display());
        let store = cluster.store.environment().into_iter();
        let mut shell = format!("exec env -i PATH={path} HOME=/run TERM=screen LC_ALL=C.UTF-8");
        shell.extend(store.map(|(name, value)| format!(" {name}={value}")));
        shell.push_str(" PS1='ready> ' sh");
        let new = ["new-session", "-d", "-s", name, "-x", &width, "-y", &height];
        terminal.tmux(&[&new[..], &[&shell]].concat());
        terminal.await_screen("ready>");
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let line = [&["tmux", "-S", "/run/tmux.socket", "-f", "/dev/null"], arguments].concat();
        self.cluster.node.run(&line)
    }

    /// Types a line that begins with clearing the screen; what appears when
    /// it is done.
    fn enter(&self, line: &str) -> String {
        self.lines.set(self.lines.get() + 1);
        let done = format!("done-{}", self.lines.get());
        let line = format!("clear; {line}; echo {done}");
        self.tmux(&["send-keys", "-t", self.name, &line, "Enter"]);
        done
    }

    /// Types a line and waits until it is done: the screen.
    fn run(&self, line: &str) -> String {
        let done = self.enter(line);
        self.await_screen(&done)
    }

    fn press(&self, key: &str) {
        self.tmux(&["send-keys", "-t", self.name, key]);
    }

    /// What is on the screen, with its escape sequences.
    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e", "-t", self.name])
    }

    /// Looks until this is on the screen, and the line that was typed is not.
    fn await_screen(&self, text: &str) -> String {
        let begun = Instant::now();
        loop {
            let screen = self.screen();
            if screen.contains(text) && !screen.contains("clear;") {
                return screen;
            }
            assert!(begun.elapsed() < PATIENCE, "{text:?} does not appear in:\n{screen}");
        }
    }
}

/// Pools enough for several pages.
fn many_pools(cluster: &Cluster) {
    let pool = |number: usize| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: pool-{number:03}}}\n\
             spec: {{cidr: 10.{number}.0.0/16}}\n"
        )
    };
    let pools: Vec<_> = (0..60).map(pool).collect();
    let answer = cluster.weirctl_with(&["create", "-f", "-"], &pools.join("---\n"));
    assert!(answer.succeeded, "{answer:?}");
}

#[test]
fn long_lists_are_paged_on_a_terminal_and_nowhere_else() {
    let cluster = Cluster::embedded();
    many_pools(&cluster);
    let terminal = Terminal::open(&cluster, "pages", 80, 24);
    let done = terminal.enter("weirctl get ippool");
    let first = terminal.await_screen("pool-021");
    assert!(first.contains("pool-000") && !first.contains("pool-059"), "{first}");
    assert!(!first.contains(&done), "the pager waits:\n{first}");
    terminal.press("G");
    let last = terminal.await_screen("pool-059");
    assert!(!last.contains("pool-000"), "{last}");
    terminal.press("q");
    terminal.await_screen(&done);
    // What fits is not paged, and neither is anything through a pipe or
    // without a pager.
    let screen = terminal.run("weirctl get ippool pool-007");
    assert!(screen.contains("10.7.0.0/16"), "{screen}");
    for line in ["weirctl get ippool | cat", "PAGER= weirctl get ippool"] {
        let screen = terminal.run(line);
        assert!(screen.contains("pool-059"), "{line}:\n{screen}");
    }
    let screen = terminal.run("PAGER='head -n 3' weirctl get ippool");
    assert!(screen.contains("pool-001") && !screen.contains("pool-002"), "{screen}");
    assert_eq!(cluster.weirctl(&["get", "ippool"]).stdout.lines().count(), 62);
}

#[test]
fn colour_and_room_are_the_terminals() {
    let cluster = Cluster::embedded();
    cluster.store.load(&recorded_store("busy"));
    let terminal = Terminal::open(&cluster, "wide", 200, 50);
    let screen = terminal.run("weirctl get ippool -o wide");
    assert!(screen.contains(&format!("{BOLD}NAME   CIDR           NAT")), "{screen:?}");
    let screen = terminal.run("NO_COLOR=1 weirctl get ippool -o wide");
    assert!(!screen.contains('\u{1b}') && screen.contains("NAME   CIDR"), "{screen:?}");
    let screen = terminal.run("weirctl get ippool nothing");
    assert!(screen.contains(&format!("{RED}resource does not exist")), "{screen:?}");
    let screen = terminal.run("weirctl get ippool nothing 2>&1 | cat");
    assert!(!screen.contains('\u{1b}'), "{screen:?}");
    let terminal = Terminal::open(&cluster, "narrow", 80, 50);
    let screen = terminal.run("weirctl get ippool blue -o wide");
    assert!(
        screen.contains("DISABLEBGPEXPORT") && screen.contains("  CrossSubnet\n"),
        "{screen:?}"
    );
    let piped = cluster.weirctl(&["get", "ippool", "blue", "-o", "wide"]).stdout;
    assert_eq!(piped.lines().count(), 3, "a table through a pipe, whatever its width:\n{piped}");
    assert!(!piped.contains('\u{1b}'), "{piped:?}");
}

#[test]
fn long_work_says_how_far_it_got() {
    let cluster = Cluster::etcd();
    let reservation = |number: usize| {
        format!(
            "{{apiVersion: projectcalico.org/v3, kind: IPReservation, metadata: {{name: r{number}}}, \
             spec: {{reservedCIDRs: [10.1.0.0/30]}}}}\n"
        )
    };
    let many: Vec<_> = (0..4000).map(reservation).collect();
    cluster.node.write("/run/many.yaml", &many.join("---\n"));
    let terminal = Terminal::open(&cluster, "long", 80, 24);
    let done = terminal.enter("weirctl create -f /run/many.yaml");
    terminal.await_screen(" of 4000 (");
    let done = terminal.await_screen(&done);
    assert!(done.contains("Successfully created 4000 'IPReservation' resource(s)"), "{done}");
    assert!(!done.contains(" of 4000 ("), "the line is gone:\n{done}");
}

#[test]
fn a_repair_says_that_it_waits_and_how_far_it_got() {
    let cluster = Cluster::etcd();
    let handle = |number: usize| {
        let key = format!("/calico/ipam/v2/handle/pods.c{number}");
        (key, String::from(r#"{"block":{"10.1.0.0/26":1},"deleted":false}"#))
    };
    cluster.store.load(&(0..2000).map(handle).collect());
    let terminal = Terminal::open(&cluster, "repair", 80, 24);
    let done = terminal.enter("weirctl ipam check --repair | tail -n 1");
    terminal.await_screen("looking again in 2 s");
    terminal.await_screen(" of 2000 (");
    let done = terminal.await_screen(&done);
    assert!(done.contains("Check complete; found 0 problems."), "{done}");
    assert!(!done.contains("looking again") && !done.contains(" of 2000 ("), "{done}");
}

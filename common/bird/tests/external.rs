//! A daemon that something else starts: in a mount and a process namespace of its own, with its
//! folder and its network in common with the supervisor, as a container has it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::process::{Child, Command};

use support::net;
use support::network::{
    Kept, Network, OF_PEER, in_network, routes, run, until, until_established, wanted,
};
use weir_bird::{BirdSettings, Client};
use weir_common::network::{ANNOUNCE_TABLE, BgpPlan};

/// Hides everything of the folder above but the daemon's own.
const CONTAINER: &str = "set -e; mount --bind \"$1/bird\" /mnt; mount -t tmpfs tmpfs \"$1\"; \
                         mkdir \"$1/bird\"; mount --move /mnt \"$1/bird\"; shift; exec \"$@\"";

/// A daemon in its container. It is killed when this is dropped.
struct Container(Child);

impl Container {
    /// Starts it by the command line that problems and documents give.
    fn start(network: &Network) -> Self {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["sh", "-c", CONTAINER, "sh"])
            .arg(network.folder.path())
            .args(network.place().command_line().split(' '));
        Self(command.spawn().expect("unshare (package util-linux) must be installed"))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn settings(network: &Network) -> BirdSettings {
    BirdSettings { program: None, ..network.settings() }
}

fn without_need() -> BgpPlan {
    BgpPlan { need: None, ..wanted() }
}

async fn until_it_answers(network: &Network) {
    until("an answer", async || Client::connect(&network.place().socket()).await.is_ok()).await;
}

async fn until_it_is_gone(network: &Network) {
    until("its end", async || Client::connect(&network.place().socket()).await.is_err()).await;
}

#[test]
fn it_can_start_before_there_is_a_plan_and_is_configured_then() {
    in_network(async |network| {
        let mut kept = Kept::start(settings(&network), None);
        until("a file to start with", async || network.place().is_used()).await;
        network.assert_private();
        let _container = Container::start(&network);
        until_it_answers(&network).await;
        assert!(network.client().await.digest().await.unwrap().is_some());
        let protocols = network.client().await.protocols().await.unwrap();
        assert!(protocols.iter().all(|it| it.kind == "Device"), "{protocols:?}");
        kept.plan(wanted());
        let report = kept.until_current().await;
        assert!(report.is_wanted && report.problems.is_empty(), "{report:?}");
        assert_eq!((report.restarts, report.notes.len()), (0, 0), "{report:?}");
        until_established(&network).await;
        assert_eq!(network.files(), ["bird.conf", "bird.ctl"], "nobody writes a process id");
    });
}

#[test]
fn without_need_it_goes_on_and_none_of_its_routes_is_left() {
    in_network(async |network| {
        let mut kept = Kept::start(settings(&network), Some(wanted()));
        until("a file to start with", async || network.place().is_used()).await;
        let container = Container::start(&network);
        kept.until_current().await;
        until_established(&network).await;
        let booted = network.client().await.status().await.unwrap().last_boot;
        kept.plan(without_need());
        kept.until(|it| !it.is_wanted && it.is_current && it.sessions.is_empty()).await;
        until("no route", async || routes().is_empty()).await;
        assert_eq!(network.client().await.status().await.unwrap().last_boot, booted);
        // And where it is dead already: the next one takes them away.
        kept.plan(wanted());
        kept.until_current().await;
        until_established(&network).await;
        drop(container);
        until_it_is_gone(&network).await;
        assert!(routes().contains(OF_PEER));
        let before = network.place().digest();
        kept.plan(without_need());
        until("another file", async || network.place().digest() != before).await;
        let _container = Container::start(&network);
        until("no route", async || routes().is_empty()).await;
        let report = kept.until(|it| it.is_current).await;
        assert!(report.problems.is_empty() && !report.is_wanted, "{report:?}");
    });
}

#[test]
fn one_that_is_killed_and_started_again_runs_its_file_and_peers_keep_its_routes() {
    in_network(async |network| {
        let mut kept = Kept::start(settings(&network), Some(wanted()));
        until("a file to start with", async || network.place().is_used()).await;
        let container = Container::start(&network);
        kept.until_current().await;
        let table = ANNOUNCE_TABLE.to_string();
        run("ip", &["route", "add", "blackhole", "10.244.1.0/26", "proto", "77", "table", &table]);
        until_established(&network).await;
        until("the block at the peer", async || network.log_of_peer().contains("10.244.1.0/26"))
            .await;
        let digest = network.client().await.digest().await.unwrap();
        drop(container);
        until_it_is_gone(&network).await;
        assert_eq!(network.place().digest(), digest, "it starts with what it ran");
        assert!(routes().contains(OF_PEER), "the kernel kept it");
        let _container = Container::start(&network);
        let report = kept.until(|it| it.restarts == 1 && it.is_current).await;
        assert!(report.problems.is_empty(), "{report:?}");
        until_established(&network).await;
        let log = network.log_of_peer();
        let is_removed = |line: &&str| line.contains("removed") && line.contains("10.244.1.0");
        assert_eq!(log.lines().find(is_removed), None);
        // What changed while it was away is given to it when it is back.
        let mut other = wanted();
        other.pools.insert(net("10.250.0.0/16"));
        kept.plan(other);
        let runs_another = async || network.client().await.digest().await.unwrap() != digest;
        until("the new configuration", runs_another).await;
        kept.until_current().await;
    });
}

#[test]
fn one_that_is_not_there_is_told_with_its_command_line_where_it_is_needed() {
    in_network(async |network| {
        let mut kept = Kept::start(settings(&network), Some(without_need()));
        until("a file to start with", async || network.place().is_used()).await;
        assert!(kept.report.borrow().problems.is_empty());
        kept.plan(wanted());
        let report = kept.until(|it| !it.problems.is_empty()).await;
        let [problem] = &report.problems[..] else { panic!("{report:?}") };
        assert!(
            problem.starts_with("BIRD does not answer (BIRD cannot be reached at "),
            "{problem}"
        );
        assert!(problem.contains(&network.place().command_line()), "{problem}");
        assert!(report.is_wanted && !report.lacks_program && !report.is_running(), "{report:?}");
        let _container = Container::start(&network);
        let report = kept.until_current().await;
        assert!(report.problems.is_empty(), "{report:?}");
    });
}

#[test]
fn a_file_that_was_removed_is_written_again() {
    in_network(async |network| {
        let mut kept = Kept::start(settings(&network), Some(wanted()));
        until("a file to start with", async || network.place().is_used()).await;
        let _container = Container::start(&network);
        kept.until_current().await;
        let digest = network.client().await.digest().await.unwrap();
        std::fs::remove_file(network.place().configuration()).unwrap();
        until("the file", async || network.place().digest() == digest).await;
    });
}

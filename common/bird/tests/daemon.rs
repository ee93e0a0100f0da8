//! The daemon, kept in a network of its own beside a peer's: started, configured, adopted,
//! restarted, taken down.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::network::{
    Kept, LOCAL, OF_PEER, PEER, beside, in_network, routes, run, until, until_established, wanted,
};
use support::{net, plan, router, secret, session, with};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use weir_bird::{BirdSettings, Client, Confirmation, Place};
use weir_common::network::{ANNOUNCE_TABLE, BgpPlan, BgpSession, ExportedOthers};
use weir_common::resources::bgp::{
    BgpFilter, FilterAction, FilterOperation, FilterRule, PeerType, PrefixAdvertisement,
    PrefixMatch, PrefixOperator,
};

#[test]
fn it_announces_the_table_and_takes_another_configuration_without_losing_a_session() {
    in_network(async |network| {
        let mut kept = Kept::start(network.settings(), Some(wanted()));
        let report = kept.until_current().await;
        assert!(report.is_wanted && report.problems.is_empty(), "{report:?}");
        assert_eq!(report.restarts, 0);
        until_established(&network).await;
        assert!(routes().contains("metric 1024"), "{}", routes());
        let table = ANNOUNCE_TABLE.to_string();
        let announce = |verb, prefix, protocol| {
            run("ip", &["route", verb, "blackhole", prefix, "proto", protocol, "table", &table])
        };
        announce("add", "10.244.1.0/26", "77");
        announce("add", "10.244.1.64/26", "76");
        until("the block at the peer", async || network.log_of_peer().contains("10.244.1.0/26"))
            .await;
        let since = network.client().await.protocols().await.unwrap();
        let pid = network.pid();
        let before = kept.report.borrow().configured_at;
        let mut other = wanted();
        other.pools.insert(net("10.250.0.0/16"));
        kept.plan(other);
        let report = kept.until(|it| it.configured_at != before && it.is_current).await;
        assert!(report.problems.is_empty(), "{report:?}");
        assert_eq!(report.sessions.len(), 1);
        let after = network.client().await.protocols().await.unwrap();
        let times = |all: &[weir_bird::ProtocolStatus]| -> Vec<(String, String)> {
            all.iter().map(|it| (it.name.clone(), it.since.clone())).collect()
        };
        assert_eq!(times(&since), times(&after), "no protocol was started again");
        assert_eq!(network.pid(), pid);
        let counts = after.iter().find(|it| it.kind == "BGP").unwrap().channels["ipv4"];
        assert_eq!((counts.imported, counts.exported), (1, 1), "only routes of proto 77 are told");
        let log = network.log_of_peer();
        assert!(!log.contains("10.244.1.64") && !log.contains("10.0.1.0/24"), "{log}");
        assert_eq!(network.files(), ["bird.conf", "bird.ctl", "bird.pid"]);
        network.assert_private();
    });
}

#[test]
fn a_router_is_told_and_believed_what_the_plan_says() {
    const OF_ROUTER: [&str; 3] = [OF_PEER, "10.245.2.0/26", "10.9.0.0/16"];
    beside(65000, &OF_ROUTER, async |network| {
        let rule = |cidr: &str, operator, action| FilterRule {
            prefix: Some(PrefixMatch { cidr: net(cidr), operator, length: None }),
            is_from_peers: false,
            interface: None,
            peer_type: Some(PeerType::External),
            communities: Vec::new(),
            as_path_prefix: Vec::new(),
            priority: None,
            action,
            operations: Vec::new(),
        };
        let marked = FilterRule {
            communities: vec!["64512:120".parse().unwrap()],
            operations: vec![
                FilterOperation::AddCommunity("65000:200".parse().unwrap()),
                FilterOperation::PrependAsPath(vec![65001, 65002]),
            ],
            ..rule("10.244.4.0/24", PrefixOperator::In, FilterAction::Accept)
        };
        let filter = BgpFilter {
            export_v4: vec![
                rule("10.244.3.0/26", PrefixOperator::Equal, FilterAction::Reject),
                marked,
            ],
            import_v4: vec![rule("10.244.0.0/15", PrefixOperator::NotIn, FilterAction::Reject)],
            ..BgpFilter::default()
        };
        let session = BgpSession {
            filters: vec!["only-pools".to_owned()],
            exports_others: ExportedOthers::All,
            ..router(LOCAL, PEER)
        };
        let mut plan = BgpPlan { need: wanted().need, ..with(plan(LOCAL), "Global", session) };
        plan.filters.insert("only-pools".to_owned(), filter);
        plan.not_exported.insert(net("10.246.0.0/16"));
        plan.of_agent.insert(net("10.245.0.0/16"));
        let communities = vec!["64512:120".parse().unwrap(), "64512:1:2".parse().unwrap()];
        plan.prefix_advertisements
            .push(PrefixAdvertisement { cidr: net("10.244.0.0/16"), communities });
        let table = ANNOUNCE_TABLE.to_string();
        for prefix in ["10.244.1.0/26", "10.244.3.0/26", "10.244.4.0/26", "10.246.1.0/26"] {
            run("ip", &["route", "add", "blackhole", prefix, "proto", "77", "table", &table]);
        }
        // A route by way of the router itself is not told to it, whatever filters say.
        run("ip", &["route", "add", "10.244.4.64/26", "via", PEER]);
        // A default route is learned for next hops, and told to no router.
        run("ip", &["route", "add", "default", "via", PEER]);
        let mut kept = Kept::start(network.settings(), Some(plan));
        kept.until_current().await;
        until_established(&network).await;
        let mut at_router = Client::connect(&network.folder.path().join("peer.ctl")).await.unwrap();
        let mut told = String::new();
        until("two routes at the router", async || {
            let reply = at_router.ask("show route all protocol node").await.unwrap();
            told = reply.lines.iter().map(|line| line.text.clone() + "\n").collect();
            told.contains("10.244.1.0/26") && told.contains("10.244.4.0/26")
        })
        .await;
        assert_eq!(told.matches("BGP.as_path").count(), 2, "{told}");
        let (plain, marked) = told.split_once("10.244.4.0/26").unwrap();
        let (plain, marked) = match plain.contains("10.244.1.0/26") {
            true => (plain, marked),
            false => (marked, plain),
        };
        assert!(plain.contains("BGP.as_path: 64512\n"), "{told}");
        assert!(plain.contains("BGP.community: (64512,120)\n"), "{told}");
        assert!(plain.contains("BGP.large_community: (64512, 1, 2)\n"), "{told}");
        assert!(marked.contains("BGP.as_path: 64512 65001 65002\n"), "{told}");
        assert!(marked.contains("BGP.community: (64512,120) (65000,200)\n"), "{told}");
        let sessions = network.client().await.protocols().await.unwrap();
        let counts = sessions.iter().find(|it| it.kind == "BGP").unwrap().channels["ipv4"];
        assert_eq!((counts.imported, counts.exported), (2, 2), "10.9.0.0/16 is not taken");
        let routes = routes();
        assert_eq!(routes.lines().count(), 1, "the agent's pool is left to it: {routes}");
    });
}

#[test]
fn another_version_than_the_installed_one_is_noted() {
    in_network(async |network| {
        let mut kept = Kept::start(network.settings(), Some(wanted()));
        kept.until_current().await;
        kept.abort().await;
        let program = network.folder.path().join("new-bird");
        std::fs::write(&program, "#!/bin/sh\necho BIRD version 2.99 >&2\n").unwrap();
        run("chmod", &["755", program.to_str().unwrap()]);
        let settings = BirdSettings { program: Some(program), ..network.settings() };
        let mut next = Kept::start(settings, Some(wanted()));
        let report = next.until_current().await;
        let [note] = &report.notes[..] else { panic!("{report:?}") };
        assert!(note.contains("2.99 is installed") && note.contains("graceful restart"), "{note}");
        assert!(report.problems.is_empty(), "{report:?}");
        // As the note says: another one is started, and no route goes.
        until_established(&network).await;
        network.client().await.restart_gracefully().await.unwrap();
        next.plans.send_replace(None);
        drop(next);
        let mut last = Kept::start(network.settings(), Some(wanted()));
        last.until_current().await;
        assert!(routes().contains(OF_PEER));
    });
}

#[test]
fn it_outlives_its_agent_and_the_next_one_adopts_it() {
    in_network(async |network| {
        let mut kept = Kept::start(network.settings(), Some(wanted()));
        kept.until_current().await;
        until_established(&network).await;
        let pid = network.pid();
        kept.abort().await;
        let mut next = Kept::start(network.settings(), None);
        until("a look without a plan", async || next.report.has_changed().unwrap()).await;
        assert_eq!(network.pid(), pid, "it is left alone until there is a plan");
        next.plan(wanted());
        let report = next.until_current().await;
        assert_eq!(network.pid(), pid);
        assert_eq!((report.restarts, report.configured_at), (0, None));
        assert!(report.notes.is_empty(), "{report:?}");
        until_established(&network).await;
        // Somebody else's configuration is replaced: what runs is read back, not assumed.
        let other = network.folder.path().join("other.conf");
        std::fs::write(&other, "protocol device { }\n").unwrap();
        let mut client = network.client().await;
        client.configure(&other, Confirmation::Unneeded).await.unwrap();
        assert_eq!(client.digest().await.unwrap(), None);
        until("the wanted configuration", async || client.digest().await.unwrap().is_some()).await;
        assert_eq!(network.pid(), pid);
    });
}

#[test]
fn one_that_is_killed_is_started_again_and_peers_keep_its_routes() {
    in_network(async |network| {
        let mut kept = Kept::start(network.settings(), Some(wanted()));
        kept.until_current().await;
        let table = ANNOUNCE_TABLE.to_string();
        run("ip", &["route", "add", "blackhole", "10.244.1.0/26", "proto", "77", "table", &table]);
        until_established(&network).await;
        until("the block at the peer", async || network.log_of_peer().contains("10.244.1.0/26"))
            .await;
        for restarts in 1..=2 {
            let pid = network.pid();
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
            let report = kept.until(|it| it.restarts == restarts && it.is_current).await;
            assert!(report.problems.is_empty(), "{report:?}");
            assert_ne!(network.pid(), pid);
            assert!(routes().contains(OF_PEER), "the kernel kept it");
            until_established(&network).await;
            // Peers drop the routes of one that dies again before it has told all of them
            // (RFC 4724, 4.2).
            let has_recovered = async || {
                let mut client = network.client().await;
                let exported = |it: &weir_bird::ProtocolStatus| it.channels["ipv4"].exported == 1;
                let sessions = client.protocols().await.unwrap();
                !client.status().await.unwrap().is_recovering
                    && sessions.iter().any(|it| it.kind == "BGP" && exported(it))
            };
            until("the end of its recovery", has_recovered).await;
        }
        let log = network.log_of_peer();
        let removed =
            log.lines().find(|line| line.contains("removed") && line.contains("10.244.1.0"));
        assert_eq!(removed, None);
    });
}

#[test]
fn one_that_a_dead_supervisor_left_dead_is_started_by_the_next() {
    in_network(async |network| {
        let mut kept = Kept::start(network.settings(), Some(wanted()));
        kept.until_current().await;
        until_established(&network).await;
        let pid = network.pid();
        kept.abort().await;
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        until("its end", async || network.place().process().is_none()).await;
        let mut next = Kept::start(network.settings(), Some(wanted()));
        next.until_current().await;
        assert_ne!(network.pid(), pid);
        assert!(routes().contains(OF_PEER));
        until_established(&network).await;
    });
}

#[test]
fn without_need_it_ends_and_none_of_its_routes_is_left() {
    in_network(async |network| {
        let mut kept = Kept::start(network.settings(), Some(wanted()));
        kept.until_current().await;
        until_established(&network).await;
        let without_need = || BgpPlan { need: None, ..wanted() };
        kept.plan(without_need());
        kept.until(|it| !it.is_wanted && !it.is_running()).await;
        until("no file", async || network.files().is_empty()).await;
        assert_eq!(routes(), "");
        // And where it is dead already.
        kept.plan(wanted());
        kept.until_current().await;
        until_established(&network).await;
        let pid = network.pid();
        kept.abort().await;
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        until("its end", async || network.place().process().is_none()).await;
        assert!(routes().contains(OF_PEER));
        let next = Kept::start(network.settings(), Some(without_need()));
        until("no file", async || network.files().is_empty()).await;
        assert_eq!(routes(), "");
        let report = next.report.borrow().clone();
        assert!(report.problems.is_empty(), "{report:?}");
    });
}

#[test]
fn passwords_are_read_again_and_one_that_is_exposed_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    in_network(async |network| {
        let guarded = {
            let password = Some(secret("mesh"));
            let session = BgpSession { password, is_passive: false, ..session(LOCAL, PEER) };
            BgpPlan { need: wanted().need, ..with(plan(LOCAL), "Mesh", session) }
        };
        let mut kept = Kept::start(network.settings(), Some(guarded));
        let report = kept.until_current().await;
        assert!(report.sessions.is_empty(), "never without its password: {report:?}");
        let told = report.problems.join("\n");
        assert!(told.contains("no session with 10.0.1.12") && told.contains("bgp/mesh"), "{told}");
        let file = network.passwords().join("bgp/mesh");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "open sesame\n").unwrap();
        let set_mode = |mode| {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        set_mode(0o644);
        let report = kept.until(|it| it.problems.join("").contains("0644")).await;
        assert!(report.sessions.is_empty() && !format!("{report:?}").contains("sesame"));
        set_mode(0o600);
        let report = kept.until(|it| it.sessions.len() == 1 && it.is_current).await;
        assert!(report.problems.is_empty(), "{report:?}");
        let text = std::fs::read_to_string(network.place().configuration()).unwrap();
        assert!(text.contains("password \"open sesame\";"));
    });
}

/// Answers as a BIRD does that runs the configuration `old` and takes no other; returns what it
/// was asked.
async fn refuse_everything(place: Place, line: usize) -> Vec<String> {
    std::fs::create_dir_all(place.socket().parent().unwrap()).unwrap();
    let listener = tokio::net::UnixListener::bind(place.socket()).unwrap();
    let mut asked = Vec::new();
    while !asked.iter().any(|it: &String| it.starts_with("show protocols")) {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        stream.write_all(b"0001 BIRD 2.0.12 ready.\n").await.unwrap();
        let mut command = String::new();
        while stream.read_line(&mut command).await.unwrap() > 0 {
            let candidate = place.candidate().display().to_string();
            let answer = match command.split(' ').next().unwrap() {
                "eval" => "0023 old\n".to_owned(),
                "configure" => format!("8002 {candidate}:{line}:7 syntax error, unexpected X\n"),
                _ => "0000 \n".to_owned(),
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
            asked.push(std::mem::take(&mut command));
        }
    }
    asked
}

#[test]
fn a_refused_configuration_is_told_with_its_resource_and_given_once() {
    in_network(async |network| {
        let text = support::configuration(&wanted()).text;
        let line = text.lines().position(|line| line.contains("neighbor")).unwrap() + 1;
        let fake = tokio::spawn(refuse_everything(network.place(), line));
        let mut kept = Kept::start(network.settings(), Some(wanted()));
        let report = kept.until(|it| !it.problems.is_empty() && it.is_running()).await;
        let told = report.problems.join("\n");
        assert!(told.contains("of BGPConfiguration (the mesh) (Mesh_10_0_1_12): "), "{told}");
        assert!(told.contains(&format!("bird.conf.new:{line}:7 syntax error")), "{told}");
        assert!(!report.is_current);
        let asked = fake.await.unwrap();
        let configured: Vec<&String> =
            asked.iter().filter(|it| it.starts_with("configure")).collect();
        assert_eq!(configured.len(), 1, "{asked:?}");
        assert!(configured[0].starts_with("configure check "), "{asked:?}");
        assert_eq!(network.files(), ["bird.ctl"]);
    });
}

#[test]
fn one_that_died_is_started_with_the_last_good_configuration_if_the_new_one_is_refused() {
    in_network(async |network| {
        let mut kept = Kept::start(network.settings(), Some(wanted()));
        kept.until_current().await;
        let good = network.client().await.digest().await.unwrap();
        let pid = network.pid();
        kept.abort().await;
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        until("its end", async || network.place().process().is_none()).await;
        // A program that takes nothing new, as one of another version might.
        let program = network.folder.path().join("old-bird");
        let script = "#!/bin/sh\n[ \"$1\" != -p ] || { echo \"bird: $3:4:1 no\" >&2; exit 1; }\n\
                      exec bird \"$@\"\n";
        std::fs::write(&program, script).unwrap();
        run("chmod", &["755", program.to_str().unwrap()]);
        let mut other = wanted();
        other.pools.insert(net("10.250.0.0/16"));
        let settings = BirdSettings { program: Some(program), ..network.settings() };
        let mut next = Kept::start(settings, Some(other));
        let report = next.until(|it| it.problems.iter().any(|it| it.contains(":4:1 no"))).await;
        assert!(!report.is_current);
        until("a daemon", async || Client::connect(&network.place().socket()).await.is_ok()).await;
        assert_eq!(network.client().await.digest().await.unwrap(), good);
        assert_ne!(network.pid(), pid);
    });
}

#[test]
fn one_that_hangs_is_told_and_left_alone() {
    in_network(async |network| {
        let mut kept = Kept::start(network.settings(), Some(wanted()));
        kept.until_current().await;
        let pid = network.pid();
        kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
        let report = kept.until(|it| !it.problems.is_empty()).await;
        let [problem] = &report.problems[..] else { panic!("{report:?}") };
        assert!(problem.contains(&format!("(process {pid}) does not answer")), "{problem}");
        kill(Pid::from_raw(pid), Signal::SIGCONT).unwrap();
        kept.until(|it| it.problems.is_empty() && it.is_current).await;
        assert_eq!(network.pid(), pid);
    });
}

#[test]
fn a_port_that_another_program_has_is_told() {
    in_network(async |network| {
        let other = std::net::TcpListener::bind("0.0.0.0:179").unwrap();
        let mut kept = Kept::start(network.settings(), Some(wanted()));
        let report = kept.until(|it| !it.problems.is_empty()).await;
        let [problem] = &report.problems[..] else { panic!("{report:?}") };
        assert!(problem.contains("listenPort") && report.is_running(), "{report:?}");
        drop(other);
        let mut elsewhere = wanted();
        elsewhere.listen_port = 1179;
        kept.plan(elsewhere);
        kept.until(|it| it.problems.is_empty() && it.is_current && it.is_running()).await;
    });
}

#[test]
fn a_missing_program_is_told_with_its_package() {
    in_network(async |network| {
        let settings = BirdSettings { program: Some("/nowhere/bird".into()), ..network.settings() };
        let mut kept = Kept::start(settings, Some(wanted()));
        let report = kept.until(|it| !it.problems.is_empty()).await;
        let [problem] = &report.problems[..] else { panic!("{report:?}") };
        assert!(problem.contains("bird2") && report.is_wanted && !report.is_running(), "{problem}");
        assert!(!network.place().is_used());
        kept.plan(plan(LOCAL));
        kept.until(|it| !it.is_wanted && it.problems.is_empty()).await;
    });
}

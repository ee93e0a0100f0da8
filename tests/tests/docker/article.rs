//! The command lines that were written for Calico's driver, and what it refused.

use serde_json::{Value, json};
use weir_tests::{Docker, DockerHosts, DockerOptions, Place, PluginSocket};

const REQUEST_POOL: &str = "/IpamDriver.RequestPool";

/// A host whose driver has Calico's names, and the pool of the command lines.
fn calicos() -> DockerHosts {
    let options = DockerOptions { calico_names: true, ..DockerOptions::default() };
    let world = DockerHosts::new(1, &options);
    world.create_pool("seed", json!({"cidr": "192.169.0.0/16"}));
    world.create_pool("seed-v6", json!({"cidr": "fd80:24e2:f998:72d6::/64"}));
    world
}

/// Runs a command line as it is written.
fn run(docker: &Docker, line: &str) -> String {
    docker.succeeds(&line.split(' ').skip(1).collect::<Vec<_>>())
}

#[test]
fn the_command_lines_work_verbatim() {
    let world = calicos();
    let docker = &world.hosts[0].docker;
    run(
        docker,
        "docker network create --driver calico --ipam-driver calico-ipam --subnet 192.169.0.0/16 net1",
    );
    run(docker, "docker network create --driver calico --ipam-driver calico-ipam net2");
    run(docker, "docker tag localhost/busybox:test busybox");
    run(docker, "docker run --net net1 --name workload-A -tid busybox");
    run(docker, "docker run --net net1 --name workload-B -tid busybox");
    run(docker, "docker run --net net2 --name workload-C -tid busybox");
    run(docker, "docker run --net net1 --ip 192.169.50.51 --name workload-D -tid busybox");
    let pinged = run(docker, "docker exec workload-A ping -c 1 -W 2 workload-B");
    assert!(pinged.contains(" 0% packet loss"), "{pinged}");
    let pinged = run(docker, "docker exec workload-A ping -c 1 -W 2 workload-B.net1");
    assert!(pinged.contains(" 0% packet loss"), "{pinged}");
    let third = docker.address("workload-C", "net2");
    let pinged = run(docker, &format!("docker exec workload-A ping -c 1 -W 2 {third}"));
    assert!(pinged.contains(" 0% packet loss"), "{pinged}");
    assert_eq!(docker.address("workload-D", "net1"), "192.169.50.51");
    assert!(docker.address("workload-A", "net1").starts_with("192.169."));
    let links = docker.container("workload-A").run(&["ip", "-brief", "link", "show"]);
    assert!(links.contains("cali0"), "interfaces are called as Calico's driver does it: {links}");
    let removed = ["workload-A", "workload-B", "workload-C", "workload-D"];
    docker.remove(&removed);
    run(docker, "docker network rm net1 net2");
    world.assert_nothing_allocated();
}

#[test]
fn ipv6_is_as_calicos_tests_had_it() {
    let world = calicos();
    let docker = &world.hosts[0].docker;
    run(
        docker,
        "docker network create --ipv6 --driver calico --ipam-driver calico-ipam --subnet 192.169.0.0/16 --subnet fd80:24e2:f998:72d6::/64 net6",
    );
    let web = docker.start_container("web", "net6", &["--ip6", "fd80:24e2:f998:72d6::51"]);
    let db = docker.start_container("db", "net6", &[]);
    assert_eq!(docker.address_v6("web", "net6"), "fd80:24e2:f998:72d6::51");
    assert!(db.reaches("fd80:24e2:f998:72d6::51"));
    let routes = web.run(&["ip", "-6", "route", "show", "default"]);
    let route = routes.lines().next().unwrap_or_default().trim_end();
    assert!(route.starts_with("default via fe80::"), "{routes}");
    assert!(route.contains("dev cali0 metric 1024"), "{routes}");
    docker.remove(&["web", "db"]);
    world.assert_nothing_allocated();
}

/// A pool that is asked for, and what is answered: a CIDR, or words of the error.
struct Asked {
    what: &'static str,
    request: Value,
    answer: Result<&'static str, &'static [&'static str]>,
}

fn asked(
    what: &'static str,
    request: Value,
    answer: Result<&'static str, &'static [&'static str]>,
) -> Asked {
    Asked { what, request, answer }
}

fn compare(socket: &PluginSocket, table: Vec<Asked>) {
    for Asked { what, request, answer: expected } in table {
        let (status, answer) = socket.call(REQUEST_POOL, &request);
        match expected {
            Ok(cidr) => {
                assert_eq!(status, 200, "{what}: {answer}");
                assert_eq!(answer["Pool"], cidr, "{what}");
                assert!(answer["PoolID"].as_str().is_some_and(|it| !it.is_empty()), "{what}");
            }
            Err(words) => {
                assert_eq!(status, 500, "{what}: {answer}");
                let said = answer["Err"].as_str().expect("a message");
                for word in words {
                    assert!(said.contains(word), "{what}: {word:?} is not in {said:?}");
                }
            }
        }
    }
}

/// What Calico's driver did, and where another answer is better, that one:
/// - a sub-range is served: Calico refuses it, because its allocator cannot keep to one;
/// - options are served if they mean something, and named if they do not.
#[test]
fn pools_are_answered_as_the_article_tells() {
    let world = calicos();
    let socket = world.hosts[0].driver.socket("calico-ipam");
    let any = json!({"AddressSpace": "CalicoLocalAddressSpace", "Options": {}});
    let answer = socket.succeeds(REQUEST_POOL, &any);
    assert_eq!(answer["PoolID"], "CalicoPoolIPv4");
    assert_eq!(answer["Pool"], "0.0.0.0/0");
    assert_eq!(answer["Data"]["com.docker.network.gateway"], "0.0.0.0/0");
    let answer = socket.succeeds(REQUEST_POOL, &json!({"V6": true}));
    assert_eq!(answer["PoolID"], "CalicoPoolIPv6");
    assert_eq!(answer["Pool"], "::/0");
    assert_eq!(answer["Data"]["com.docker.network.gateway"], "::/0");
    let answer = socket.succeeds(REQUEST_POOL, &json!({"Pool": "192.169.0.0/16"}));
    assert_eq!(answer["Pool"], "192.169.0.0/16");
    assert_eq!(answer["Data"]["com.docker.network.gateway"], "0.0.0.0/0");
    compare(
        &socket,
        vec![
            asked("a pool", json!({"Pool": "192.169.0.0/16"}), Ok("192.169.0.0/16")),
            asked(
                "a pool of IPv6",
                json!({"Pool": "fd80:24e2:f998:72d6::/64", "V6": true}),
                Ok("fd80:24e2:f998:72d6::/64"),
            ),
            asked(
                "no pool",
                json!({"Pool": "10.9.0.0/24"}),
                Err(&["10.9.0.0/24", "192.169.0.0/16", "weirctl get ippool"]),
            ),
            asked(
                "a part of a pool",
                json!({"Pool": "192.169.1.0/24"}),
                Err(&["192.169.1.0/24", "192.169.0.0/16"]),
            ),
            asked("no CIDR", json!({"Pool": "192.169.0.0"}), Err(&["192.169.0.0"])),
            asked("no CIDR", json!({"Pool": "192.169.0.0/33"}), Err(&["192.169.0.0/33"])),
            asked("no CIDR", json!({"Pool": "nonsense"}), Err(&["nonsense"])),
            asked(
                "a sub-range",
                json!({"Pool": "192.169.0.0/16", "SubPool": "192.169.4.0/24"}),
                Ok("192.169.0.0/16"),
            ),
            asked(
                "a sub-range of another pool",
                json!({"Pool": "192.169.0.0/16", "SubPool": "10.9.0.0/24"}),
                Err(&["10.9.0.0/24", "192.169.0.0/16"]),
            ),
            asked(
                "a sub-range that is none",
                json!({"Pool": "192.169.0.0/16", "SubPool": "192.169.4.0/99"}),
                Err(&["192.169.4.0/99"]),
            ),
            asked(
                "an option that means nothing",
                json!({"Pool": "192.169.0.0/16", "Options": {"colour": "red"}}),
                Err(&["colour"]),
            ),
        ],
    );
}

#[test]
fn what_calicos_driver_refused_is_refused_by_name() {
    let world = calicos();
    let docker = &world.hosts[0].docker;
    let create = |arguments: &[&str]| {
        let line = ["network", "create", "--driver", "calico"];
        let line = [&line[..], arguments, &["refused"]].concat();
        docker.fails(&line)
    };
    let ipam = ["--ipam-driver", "calico-ipam", "--subnet", "192.169.0.0/16"];
    let with = |more: &[&'static str]| [&ipam[..], more].concat();
    let said = create(&with(&["--gateway", "192.169.0.1"]));
    assert!(said.contains("--gateway"), "{said}");
    let said = create(&with(&["--opt", "colour=red"]));
    assert!(said.contains("colour"), "{said}");
    let said = create(&with(&["--ipam-opt", "colour=red"]));
    assert!(said.contains("colour"), "{said}");
    let said = create(&["--subnet", "192.169.0.0/16"]);
    assert!(said.contains("--ipam-driver"), "another driver's addresses: {said}");
    let said = create(&["--ipam-driver", "calico-ipam", "--subnet", "10.9.0.0/24"]);
    assert!(said.contains("192.169.0.0/16"), "the pools there are: {said}");
    let listed = docker.succeeds(&["network", "ls", "--format", "{{.Name}}"]);
    assert!(!listed.contains("refused"), "{listed}");
    world.assert_nothing_allocated();
}

//! A real etcd.

use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use weir_datastore::OPERATIONS_LIMIT;

use crate::certificates::Certificates;
use crate::node::Node;
use crate::place::Place;
use crate::program_log::await_line;
use crate::store::Entries;

/// What etcd writes when it takes requests.
const READY: &str = "ready to serve client requests";

/// The key that fills it.
const JUNK: &str = "/junk";

/// How an etcd is to run.
#[derive(Clone)]
pub struct Options {
    /// The address of its node by which clients reach it.
    pub address: IpAddr,
    /// The port for clients; the next one is taken as well.
    pub port: u16,
    /// Serve TLS and ask for a client's certificate.
    pub certificates: Option<Arc<Certificates>>,
    /// The password of user `root`, without which nobody may do anything.
    pub password: Option<String>,
    /// How many bytes it takes (`--quota-backend-bytes`); etcd's own default without.
    pub quota: Option<u32>,
    /// The ports of all members of its cluster, on the same node; none for the only member.
    pub members: Vec<u16>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: Ipv4Addr::LOCALHOST.into(),
            port: 2379,
            certificates: None,
            password: None,
            quota: None,
            members: Vec::new(),
        }
    }
}

/// An etcd on a node, listening on all its addresses, with its data in memory.
/// It ends with this value or with its node.
pub struct Etcd {
    node: Node,
    child: Child,
    options: Options,
}

impl Etcd {
    /// Starts an etcd without TLS and passwords at port 2379.
    pub fn start(node: &Node) -> Self {
        Self::start_with(node, Options::default())
    }

    /// Starts an etcd and waits until it takes requests.
    pub fn start_with(node: &Node, options: Options) -> Self {
        let child = spawn(node, &options);
        let etcd = Self { node: node.clone(), child, options };
        etcd.set_password();
        etcd
    }

    /// Starts the members of a cluster on a node and waits until all take requests. They come
    /// with those first that do not lead: without them nobody is elected, and nothing waits
    /// for that.
    pub fn start_members(node: &Node, ports: &[u16]) -> Vec<Self> {
        let start = |&port: &u16| {
            let options = Options { port, members: ports.to_vec(), ..Options::default() };
            let child = node.spawn(&mut command(&options));
            Self { node: node.clone(), child, options }
        };
        let mut members: Vec<_> = ports.iter().map(start).collect();
        for member in &mut members {
            await_ready(&mut member.child);
        }
        members.sort_by_key(Self::leads);
        members
    }

    /// Whether this member leads its cluster.
    fn leads(&self) -> bool {
        let answer = self.control(&["endpoint", "status", "--write-out", "json"], "");
        let answer: Value = serde_json::from_str(&answer).expect("etcdctl writes JSON");
        let status = &answer[0]["Status"];
        status["leader"] == status["header"]["member_id"]
    }

    /// Whether it answers, and knows a leader that does.
    pub fn is_healthy(&self) -> bool {
        let endpoint = self.endpoint();
        self.node.succeeds(&["etcdctl", "--endpoints", &endpoint, "endpoint", "health"])
    }

    /// The URLs of several members, as they are configured.
    pub fn endpoints(members: &[Self]) -> String {
        members.iter().map(Self::endpoint).collect::<Vec<_>>().join(",")
    }

    /// Drops every packet of a client's to this member from now on.
    pub fn cut_off(&self) {
        self.drop_packets(&format!("tcp dport {} drop", self.options.port));
    }

    /// Drops every packet on the connections that the others make to this member. It hears
    /// its leader by those that it makes, and cannot answer it.
    pub fn mute(&self) {
        let peer = self.options.port + 1;
        self.drop_packets(&format!("tcp dport {peer} drop\ntcp sport {peer} drop"));
    }

    fn drop_packets(&self, rules: &str) {
        let port = self.options.port;
        let table = format!(
            "table inet cut-{port} {{\nchain input {{\n\
             type filter hook input priority 0;\n{rules}\n}}\n}}\n"
        );
        self.node.run_with(&["nft", "-f", "-"], &table);
    }

    /// The URL for clients: on the same node only, unless the options say
    /// another address.
    pub fn endpoint(&self) -> String {
        self.endpoint_at(&self.options.address.to_string())
    }

    /// The URL for clients that reach this node at `address`.
    pub fn endpoint_at(&self, address: &str) -> String {
        let scheme = if self.options.certificates.is_some() { "https" } else { "http" };
        format!("{scheme}://{address}:{}", self.options.port)
    }

    /// The certificates it works with, if any.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.options.certificates.as_deref()
    }

    /// The password of its user `root`, if it asks for one.
    pub fn password(&self) -> Option<&str> {
        self.options.password.as_deref()
    }

    /// The node it is on.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Runs etcdctl against this etcd, with all the rights there are; it must
    /// succeed.
    pub fn control(&self, arguments: &[&str], input: &str) -> String {
        let mut line = vec!["etcdctl".to_owned(), "--endpoints".to_owned(), self.endpoint()];
        if let Some(certificates) = &self.options.certificates {
            for (flag, file) in
                [("--cacert", "ca.pem"), ("--cert", "client.pem"), ("--key", "client.key")]
            {
                line.extend([flag.to_owned(), certificates.file(file)]);
            }
        }
        if let Some(password) = &self.options.password {
            line.extend(["--user".to_owned(), format!("root:{password}")]);
        }
        line.extend(arguments.iter().map(|&argument| argument.to_owned()));
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        self.node.run_with(&line, input)
    }

    /// All keys under `/calico` with their values.
    pub fn entries(&self) -> Entries {
        let listing = self.control(&["get", "--prefix", "/calico"], "");
        let mut lines = listing.lines().map(str::to_owned);
        let mut entries = Entries::new();
        while let (Some(key), Some(value)) = (lines.next(), lines.next()) {
            entries.insert(key, value);
        }
        entries
    }

    /// Writes one key.
    pub fn put(&self, key: &str, value: &str) {
        self.control(&["put", key], value);
    }

    /// Writes many keys.
    pub fn load(&self, entries: &Entries) {
        let puts: Vec<String> = entries
            .iter()
            // etcdctl reads Go's quoted strings, of which JSON's are a part.
            .map(|(key, value)| {
                format!("put {} {}\n", Value::from(key.as_str()), Value::from(value.as_str()))
            })
            .collect();
        for batch in puts.chunks(OPERATIONS_LIMIT) {
            // No comparisons, these writes, no writes otherwise.
            self.control(&["txn"], &format!("\n{}\n\n", batch.concat()));
        }
    }

    /// Removes one key, which must be there.
    pub fn delete(&self, key: &str) {
        assert_eq!(self.control(&["del", key], "").trim(), "1", "{key} should have been there");
    }

    /// The present revision.
    pub fn revision(&self) -> i64 {
        let answer = self.control(&["get", "/", "--write-out", "json"], "");
        let answer: Value = serde_json::from_str(&answer).expect("etcdctl writes JSON");
        answer["header"]["revision"].as_i64().expect("a header has a revision")
    }

    /// Throws all history away up to now.
    pub fn compact(&self) {
        self.control(&["compact", &self.revision().to_string()], "");
    }

    /// Writes one key after another, each by a transaction of its own, faster than by
    /// [`Etcd::put`].
    pub fn put_each(&self, entries: &Entries) {
        let lines: Vec<String> =
            entries.iter().map(|(key, value)| format!("{key}\0{value}\0")).collect();
        let endpoint = self.endpoint();
        let line = ["xargs", "-0", "-n", "2", "-P", "8", "etcdctl", "--endpoints", &endpoint];
        self.node.run_with(&[&line[..], &["put"]].concat(), &lines.concat());
    }

    /// Writes until there is no space left and the alarm NOSPACE is raised.
    pub fn fill(&self) {
        let (endpoint, junk) = (self.endpoint(), "x".repeat(100_000));
        let line = ["etcdctl", "--endpoints", &endpoint, "put", JUNK, &junk];
        while self.node.succeeds(&line) {}
        assert!(self.control(&["alarm", "list"], "").contains("NOSPACE"));
    }

    /// Takes away what [`Etcd::fill`] wrote, as an operator does it.
    pub fn make_room(&self) {
        self.delete(JUNK);
        self.control(&["compact", "--physical", &self.revision().to_string()], "");
        self.control(&["defrag"], "");
        self.control(&["alarm", "disarm"], "");
    }

    /// Stops the process in its tracks: it keeps its connections and answers
    /// nothing.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets a frozen etcd go on.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Kills the process. Its data stay.
    pub fn stop(&mut self) {
        self.child.kill().expect("the etcd of this test can be killed");
        self.child.wait().expect("waiting for a child");
    }

    /// Starts it again after [`Etcd::stop`], with the data it had.
    pub fn restart(&mut self) {
        self.child = spawn(&self.node, &self.options);
    }

    /// Saves all its data in a file on its node, which is not there yet.
    pub fn save(&self, path: &str) {
        self.control(&["snapshot", "save", path], "");
    }

    /// Replaces its data by those of such a file, after [`Etcd::stop`], and
    /// starts it again. Revisions go on from there, so that they are used again.
    pub fn restore(&mut self, path: &str) {
        let (data, peer) = (data_directory(&self.options), peer_url(self.options.port));
        self.node.run(&["rm", "-r", &data]);
        let cluster = initial_cluster(&self.options);
        let mut line = vec!["etcdctl", "snapshot", "restore", path, "--data-dir", &data];
        let name = member_name(self.options.port);
        line.extend(["--name", &name, "--initial-cluster", &cluster]);
        line.extend(["--initial-advertise-peer-urls", &peer]);
        self.node.run(&line);
        self.restart();
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("process numbers are small");
        kill(Pid::from_raw(id), signal).expect("the etcd of this test runs");
    }

    fn set_password(&self) {
        let Some(password) = &self.options.password else { return };
        self.open_control(&["user", "add", "--interactive=false", &format!("root:{password}")]);
        self.open_control(&["user", "grant-role", "root", "root"]);
        self.open_control(&["auth", "enable"]);
    }

    /// etcdctl as it works before a password is asked for.
    fn open_control(&self, arguments: &[&str]) {
        let options = Options { password: None, ..self.options.clone() };
        let mut line = vec!["etcdctl", "--endpoints"];
        assert!(options.certificates.is_none(), "TLS and passwords together are not needed yet");
        let endpoint = self.endpoint();
        line.push(&endpoint);
        line.extend(arguments);
        self.node.run(&line);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended already; the node's end kills it in any case.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Starts an etcd and waits until it takes requests.
fn spawn(node: &Node, options: &Options) -> Child {
    let mut child = node.spawn(&mut command(options));
    await_ready(&mut child);
    child
}

fn await_ready(child: &mut Child) {
    let log = child.stderr.take().expect("the standard error is a pipe");
    await_line("etcd", log, READY);
}

fn member_name(port: u16) -> String {
    format!("test-{port}")
}

fn data_directory(options: &Options) -> String {
    format!("/var/lib/etcd-{}", options.port)
}

fn peer_url(port: u16) -> String {
    format!("http://127.0.0.1:{}", port + 1)
}

fn initial_cluster(options: &Options) -> String {
    let alone = [options.port];
    let ports = if options.members.is_empty() { &alone[..] } else { &options.members };
    let named = |&port: &u16| format!("{}={}", member_name(port), peer_url(port));
    ports.iter().map(named).collect::<Vec<_>>().join(",")
}

fn command(options: &Options) -> Command {
    let port = options.port;
    let scheme = if options.certificates.is_some() { "https" } else { "http" };
    let peer = peer_url(port);
    // A lone member need not wait long for others before it leads.
    let [heartbeat, election] =
        if options.members.is_empty() { ["10", "100"] } else { ["100", "1000"] };
    let mut command = Command::new("etcd");
    command
        .args(["--name", &member_name(port), "--data-dir", &data_directory(options)])
        .args(["--listen-client-urls", &format!("{scheme}://0.0.0.0:{port}")])
        .args(["--advertise-client-urls", &format!("{scheme}://127.0.0.1:{port}")])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &initial_cluster(options), "--log-level", "info"])
        .args(["--heartbeat-interval", heartbeat, "--election-timeout", election])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    if let Some(quota) = options.quota {
        command.args(["--quota-backend-bytes", &quota.to_string()]);
    }
    if let Some(certificates) = &options.certificates {
        command
            .args(["--client-cert-auth", "--trusted-ca-file", &certificates.file("ca.pem")])
            .args(["--cert-file", &certificates.file("server.pem")])
            .args(["--key-file", &certificates.file("server.key")]);
    }
    command
}

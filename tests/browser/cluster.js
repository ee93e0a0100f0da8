// A real datastore and a real dashboard: an etcd with a large cluster, and `weirctl dashboard` on it.

import assert from "node:assert/strict";
import {execFile, spawn} from "node:child_process";
import {createHash} from "node:crypto";
import {mkdtemp, rm} from "node:fs/promises";
import {tmpdir} from "node:os";
import {join} from "node:path";
import {createInterface} from "node:readline";
import {promisify} from "node:util";

const PROGRAMS = process.env.WEIR_PROGRAMS;
const PORT = 2379, ENDPOINT = `http://127.0.0.1:${PORT}`;
const TOGETHER = 120;  // writes in one transaction; etcd takes 128
const BLOCK = 64;      // addresses

export const NODES = 1000, BLOCKS = 10000;
export const nodeName = number => `node-${String(number + 1).padStart(4, "0")}.cluster.example`;

// The CIDR of the block with this number, in 10.0.0.0/8.
export function blockCidr(number) {
    const first = number * BLOCK;
    return `10.${first >> 16 & 255}.${first >> 8 & 255}.${first & 255}/26`;
}

// Ends a program that was started here, and waits for its end.
async function end(child) {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise(done => child.once("exit", done));
    child.kill("SIGTERM");
    await ended;
}

// Waits for a line of a program's output.
async function line(child, stream, pattern) {
    const said = [];
    for await (const text of createInterface({input: stream})) {
        said.push(text);
        if (pattern.test(text)) {
            stream.resume();
            return text;
        }
    }
    assert.fail(`${child.spawnfile} ended: ${said.join("\n")}`);
}

// Runs an etcd whose data are in memory, until `stop`.
export async function startEtcd() {
    const directory = await mkdtemp(join(tmpdir(), "weir-etcd-"));
    const start = async () => {
        const child = spawn("etcd", ["--data-dir", directory, "--listen-client-urls", ENDPOINT, "--advertise-client-urls", ENDPOINT,
            "--listen-peer-urls", `http://127.0.0.1:${PORT + 1}`, "--unsafe-no-fsync"], {stdio: ["ignore", "ignore", "pipe"]});
        await line(child, child.stderr, /ready to serve client requests/);
        return child;
    };
    let child = await start();
    return {
        kill: () => end(child),
        restart: async () => { child = await start(); },
        stop: async () => { await end(child); await rm(directory, {recursive: true}); },
    };
}

const encode = value => Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64");

// Writes [key, value] pairs into etcd, TOGETHER in one transaction.
export async function put(pairs) {
    for (let at = 0; at < pairs.length; at += TOGETHER) {
        const success = pairs.slice(at, at + TOGETHER).map(([key, value]) => ({requestPut: {key: encode(key), value: encode(value)}}));
        const answer = await fetch(`${ENDPOINT}/v3/kv/txn`, {method: "POST", body: JSON.stringify({success})});
        assert.ok(answer.ok, await answer.text());
    }
}

// A block of a node as Calico stores it, with so many addresses taken by pods; and its handle.
export function block(number, node, used) {
    const cidr = blockCidr(number), key = cidr.replace("/", "-"), handle = `pods.${createHash("sha256").update(cidr).digest("hex")}`;
    const ordinals = [...Array(BLOCK).keys()];
    const holder = ordinal => ({
        handle_id: handle,
        secondary: {interface: "eth0", namespace: "production", node, pod: `frontend-${number}-${ordinal}`, timestamp: "2026-11-23 03:40:17.28409748 +0000 UTC"},
    });
    const value = {
        cidr, affinity: `host:${node}`, allocations: ordinals.map(ordinal => ordinal < used ? ordinal : null), unallocated: ordinals.slice(used),
        attributes: ordinals.slice(0, used).map(holder), sequenceNumber: 1, sequenceNumberForAllocation: {}, deleted: false,
    };
    return [
        [`/calico/ipam/v2/assignment/ipv4/block/${key}`, value],
        [`/calico/ipam/v2/handle/${handle}`, {block: {[cidr]: used}, deleted: false}],
        [`/calico/ipam/v2/host/${node}/ipv4/block/${key}`, {state: "confirmed", deleted: false}],
    ].filter(([name]) => used > 0 || !name.includes("/handle/"));
}

// How much of a block is used, different from one to the next.
export const use = number => [64, 57, 64, 13, 41, 0, 22, 64, 5, 33][(number * 7 + (number >> 4)) % 10];

// Which node has a block: always the same, but no neighbours, as hosts choose their blocks by hash.
export const owner = number => nodeName((number * 389) % NODES);

// Fills the datastore: NODES nodes, BLOCKS blocks of one pool, and pools without blocks.
export async function fill() {
    const kind = (kind, name, spec) => ({kind, apiVersion: "projectcalico.org/v3", metadata: {name, uid: crypto.randomUUID(), creationTimestamp: "2026-11-23T03:00:00Z"}, spec});
    const pool = (name, spec) => [`/calico/resources/v3/projectcalico.org/ippools/${name}`, kind("IPPool", name, {ipipMode: "Never", vxlanMode: "Never", nodeSelector: "all()", ...spec})];
    const pairs = [
        pool("default-ipv4", {cidr: "10.0.0.0/8", blockSize: 26, ipipMode: "CrossSubnet", natOutgoing: true}),
        pool("default-ipv6", {cidr: "fd00:7::/48", blockSize: 122}),
        pool("edge", {cidr: "172.20.0.0/16", blockSize: 26, vxlanMode: "Always", disabled: true}),
    ];
    for (let number = 0; number < NODES; number++) {
        const name = nodeName(number), address = `192.168.${Math.floor(number / 200)}.${number % 200 + 1}/24`;
        pairs.push([`/calico/resources/v3/projectcalico.org/nodes/${name}`, kind("Node", name, {bgp: {ipv4Address: address, ipv6Address: `fd00:ac::${(number + 1).toString(16)}/64`}})]);
    }
    for (let number = 0; number < BLOCKS; number++) pairs.push(...block(number, owner(number), use(number)));
    await put(pairs);
}

// Runs `weirctl dashboard` on the datastore, until `stop`.
export async function startDashboard() {
    const child = spawn(join(PROGRAMS, "weirctl"), ["dashboard", "--listen", "127.0.0.1:0"], {env: {...process.env, ...environment()}, stdio: ["ignore", "pipe", "inherit"]});
    const [url] = /http:\/\/\S+/.exec(await line(child, child.stdout, /^ready at/));
    return {url: url.endsWith("/") ? url : `${url}/`, stop: () => end(child)};
}

function environment() {
    return {DATASTORE_TYPE: "etcdv3", ETCD_ENDPOINTS: ENDPOINT};
}

// Runs `weirctl` with these arguments.
export function weirctl(...args) {
    return promisify(execFile)(join(PROGRAMS, "weirctl"), args, {env: {...process.env, ...environment()}});
}

// Calls the plugin `weir-ipam`, as another main plugin does for a container.
export async function callIpam(verb, container, node) {
    const configuration = {
        cniVersion: "1.0.0", name: "pods", type: "bridge", datastore_type: "etcdv3", etcd_endpoints: ENDPOINT, nodename: node,
        ipam: {type: "weir-ipam", ipv4_pools: ["default-ipv4"]},
    };
    const variables = {CNI_COMMAND: verb, CNI_CONTAINERID: container, CNI_NETNS: "/proc/self/ns/net", CNI_IFNAME: "eth0", CNI_PATH: PROGRAMS};
    const call = promisify(execFile)(join(PROGRAMS, "weir-ipam"), [], {env: {...process.env, ...variables}});
    call.child.stdin.end(JSON.stringify(configuration));
    const {stdout} = await call;
    return stdout ? JSON.parse(stdout) : null;
}

// What datastores contain, as the dashboard's server tells of them: generated, always the same.

const TIME = "2026-11-29T16:00:00Z";

function nodeName(number) {
    return `node-${String(number + 1).padStart(4, "0")}`;
}

// The CIDR of the block with this number in 10.0.0.0/8, blocks of /26.
function blockCidr(number) {
    const first = number * 64;
    return `10.${first >> 16 & 255}.${first >> 8 & 255}.${first & 255}/26`;
}

function pool(name, cidr, blocks, more = {}) {
    const sum = column => String(blocks.reduce((total, block) => total + block[column], 0));
    const [, length] = cidr.split("/");
    const total = 2n ** BigInt((cidr.includes(":") ? 128 : 32) - Number(length));
    return {
        name, cidr, blockSize: cidr.includes(":") ? 122 : 26, disabled: false, encapsulation: "IPIP CrossSubnet", nat: true,
        total: String(total), used: sum(2), free: String(total - BigInt(sum(2))), reserved: sum(4), cooling: sum(5), borrowed: "0", blocks, ...more,
    };
}

function node(name, number, more = {}) {
    return {name, ipv4: `192.168.${number >> 8}.${number & 255}/24`, ipv6: null, blocks: 10, addresses: 300, problems: 0, ...more};
}

function state(more) {
    return {
        version: "0.1.0", generation: 1, time: TIME, datastore: "etcd http://127.0.0.1:2379", here: null, offline: null,
        nodes: [], pools: [], problems: [], checked: TIME, ...more,
    };
}

// A thousand nodes with ten blocks each, a pool of IPv6, a disabled one and an empty one.
export function large() {
    const nodes = Array.from({length: 1000}, (_, number) => node(nodeName(number), number + 1));
    const use = number => [64, 64, 0, 13, 41, 57, 64, 22, 5, 33][(number * 7 + (number >> 4)) % 10];
    const block = (cidr, number) => [cidr, number % 97 === 96 ? -1 : (number * 389) % 1000, use(number), 64, number % 113 === 0 ? 4 : 0, use(number) < 40 && number % 5 === 0 ? 9 : 0];
    const v4 = Array.from({length: 10000}, (_, number) => block(blockCidr(number), number));
    const v6 = Array.from({length: 500}, (_, number) => block(`fd00:7::${(number * 64).toString(16)}/122`.replace("::0/", "::/"), number));
    return state({
        here: nodeName(0), nodes,
        pools: [
            pool("default-ipv4", "10.0.0.0/8", v4, {borrowed: "12"}),
            pool("default-ipv6", "fd00:7::/48", v6, {encapsulation: "none", nat: false}),
            pool("edge", "172.20.0.0/16", [["172.20.0.0/26", 3, 64, 64, 0, 0], ["172.20.0.64/26", 4, 2, 64, 0, 1]], {encapsulation: "VXLAN Always", disabled: true}),
            pool("spare", "172.21.0.0/20", [], {encapsulation: "none"}),
        ],
    });
}

export function troubled() {
    const whole = large();
    whole.problems = [
        {severity: "error", what: "is used by pod default/web and is free in its block: the next container can get it, too", about: "10.0.3.17", cure: "weirctl ipam check --repair"},
        ...Array.from({length: 36}, (_, number) => ({severity: "warning", what: "has a handle whose container is gone", about: `10.1.0.${number}`, cure: "weirctl ipam check --repair"})),
        {severity: "warning", what: "has no registered address: no other node reaches its containers", about: "node-0007", cure: "weirctl node run"},
    ];
    whole.nodes[6] = {...whole.nodes[6], ipv4: null, problems: 1};
    return whole;
}

// Names that are markup, names as long as may be, and addresses as long as may be.
export function hostile() {
    const long = "n".repeat(60) + "-end";
    const markup = "<img src=x onerror=\"document.title='broken'\">";
    return state({
        here: markup,
        nodes: [node(markup, 1), node(long, 2, {ipv4: null, ipv6: "2001:db8:1234:5678:9abc:def0:1234:5678/64"})],
        pools: [
            pool(markup, "10.7.0.0/16", [["10.7.0.0/26", 0, 41, 64, 0, 2], ["10.7.0.64/26", 1, 64, 64, 0, 0]]),
            pool("p".repeat(64), "2001:db8:1234:5678::/64", [["2001:db8:1234:5678:9abc:def0:1234:5640/122", 1, 7, 64, 0, 0]], {encapsulation: "none"}),
        ],
        problems: [{severity: "error", what: markup, about: markup, cure: `weirctl release '${markup}'`}],
    });
}

export function empty() {
    return state({checked: null});
}

export function single() {
    return state({
        here: "alone", datastore: "embedded /var/lib/weir/weir.db", nodes: [node("alone", 1, {blocks: 1, addresses: 3})],
        pools: [pool("default", "10.7.0.0/16", [["10.7.3.64/26", 0, 3, 64, 0, 0]])],
    });
}

// The way from one node to another in a pool that tunnels by IPIP across subnets, as the server tells it.
function wayTo(it, own, pool) {
    const subnet = own.ipv4?.replace(/\d+\/24$/, "0/24");
    if (it.ipv4 === null) {
        const why = `${pool.cidr} is on node ${it.name}, which has no address to reach it by; register the node with its address, or "weirctl delete node ${it.name}" if it is gone`;
        return {how: "none", nextHop: null, device: null, why};
    }
    const nextHop = it.ipv4.split("/")[0];
    return it.ipv4.replace(/\d+\/24$/, "0/24") === subnet
        ? {how: "direct", nextHop, device: null, why: `same subnet ${subnet}`}
        : {how: "IPIP", nextHop, device: "tunl0", why: `the pool says CrossSubnet, and ${nextHop} is not in ${subnet}`};
}

// What one node reaches how.
export function reachOf(state, from) {
    const own = state.nodes.find(it => it.name === from), [pool] = state.pools;
    return {from, to: state.nodes.filter(it => it.name !== from).map(it => ({node: it.name, family: 4, pools: [pool.name], ...wayTo(it, own, pool)}))};
}

function blockOf(state, cidr) {
    for (const pool of state.pools) {
        const block = pool.blocks.find(it => it[0] === cidr);
        if (block) return {pool, block};
    }
    return null;
}

function addressIn(cidr, ordinal) {
    const [first] = cidr.split("/");
    if (first.includes(":")) return `${first.replace(/::$/, "::")}${first.endsWith("::") ? ordinal.toString(16) : `+${ordinal}`}`;
    const parts = first.split(".").map(Number);
    return [...parts.slice(0, 3), parts[3] + ordinal].join(".");
}

export function addressesOf(state, cidr) {
    const found = blockOf(state, cidr);
    if (!found) return null;
    const {pool, block: [, index, used, , reserved, cooling]} = found;
    const name = state.nodes[index]?.name ?? null;
    const entry = (ordinal, kind) => ({
        address: addressIn(cidr, ordinal), state: kind, handle: kind === "used" ? `pods.${"3f2a".repeat(16)}.eth0` : null,
        container: kind === "used" ? "3f2a9bc1".repeat(8) : null, pod: kind === "used" ? `web-${ordinal}` : null, namespace: kind === "used" ? "default" : null,
        node: name, interface: kind === "used" ? "eth0" : null, type: null, network: kind === "used" ? "pods" : null, since: kind === "reserved" ? null : "2026-11-28T09:12:44Z",
    });
    const kinds = [...Array(used).fill("used"), ...Array(cooling).fill("cooling"), ...Array(reserved).fill("reserved")];
    return {cidr, pool: pool.name, node: name, addresses: kinds.map((kind, ordinal) => entry(ordinal, kind))};
}

export function answersTo(state, query) {
    const nodes = state.nodes.filter(it => it.name.includes(query)).slice(0, 50);
    const answers = nodes.map(it => ({
        kind: "node", title: it.name, lines: [...it.ipv4 ? [["address", it.ipv4]] : [], ["blocks", String(it.blocks)]], block: null, node: it.name, history: [],
    }));
    const number = /^10\.(\d+)\.(\d+)\.(\d+)$/.exec(query);
    if (number) {
        const [, second, third, fourth] = number.map(Number);
        const cidr = blockCidr((second << 16 | third << 8 | fourth) >> 6);
        const found = blockOf(state, cidr);
        const home = state.nodes[found?.block[1]], name = home?.name ?? null;
        const {how, nextHop, device, why} = home && home.name !== state.here ? wayTo(home, state.nodes[0], state.pools[0]) : {};
        const way = how && [`reached from ${state.here}`, `${how}${nextHop ? ` by ${nextHop}` : ""}${device ? ` over ${device}` : ""}: ${why}`];
        answers.push({
            kind: "address", title: query, block: found ? cidr : null, node: name,
            lines: [
                ["has it", `pod default/web, container ${"3f2a9bc1".repeat(8)} on ${name}`], ["since", "2026-11-28T09:12:44Z"], ["interface", "eth0"], ["network", "pods"],
                ["block", found ? `${cidr} of ${name ?? "no host"}` : "none"], ["pool", found?.pool.name ?? "none"], ...way ? [way] : [],
            ],
            history: [{from: "2026-11-28T09:12:44Z", until: null, what: `pod default/web on ${name}`}, {from: "2026-11-21T18:00:01Z", until: "2026-11-28T08:59:00Z", what: "pod default/old on node-0042"}],
        });
    }
    return {query, answers, note: answers.length === 50 ? "there may be more answers; write more of the name" : null};
}

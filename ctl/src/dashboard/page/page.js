
"use strict";
// The dashboard's page: reads /api/state whenever /api/events says that it changed, and shows it.
// Names come from a datastore, where others write: they become text, never markup.

const REFRESH_PAUSE_MS = 200;   // between two readings of the state
const DETAILS_PAUSE_MS = 1500;  // between two readings of what is derived from it
const TYPING_PAUSE_MS = 150;
const RETRY_MS = 1000;          // until the stream is dialled again: twice as long each time,
const LONGEST_RETRY_MS = 10000; // but no longer
const ANSWER_MS = 10000;        // for an answer
const SILENCE_MS = 40000;       // without a change, until the state is read nevertheless
const ROWS = 50;                // of a table at once
const MARKS = 400;              // at most, of an answer's blocks
const FLASHES = 200;
const KEY_NODES = 12;           // whose colours the legend explains

const $ = id => document.getElementById(id);
// `from`: the node whose ways are shown; `marked`: the blocks that were searched for.
const view = {state: null, from: null, marked: []};
const bands = () => [...$("pool-list").parts?.values() ?? []];

// ---------------------------------------------------------------- elements

// An element with properties or attributes, and children, of which strings become text.
function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
        if (name in element) element[name] = value;
        else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
}

// What has not changed is not touched: selections, and what screen readers say, depend on it.
function write(element, text) {
    if (element.textContent !== text) element.textContent = text;
}

function show(element, visible) {
    if (element.hidden === visible) element.hidden = !visible;
}

// Makes the children of `parent` one for each item, and keeps those that are there: with them stay
// the focus and the scroll position. A part is {root, update(item)}; without `keyOf` the first item
// has the first part, and so on.
function reconcile(parent, items, create, keyOf = (_, at) => at) {
    const before = parent.parts ?? new Map();
    const keys = items.map(keyOf), wanted = new Set(keys);
    for (const [key, part] of before) if (!wanted.has(key)) part.root.remove();
    parent.parts = new Map();
    let place = parent.firstChild;
    items.forEach((item, at) => {
        const part = before.get(keys[at]) ?? create(item);
        parent.parts.set(keys[at], part);
        if (part.root === place) place = place.nextSibling;
        else parent.insertBefore(part.root, place);
        part.update(item);
    });
}

// Says something to who cannot see it.
function say(text) {
    write($("live"), text);
}

function copyButton(text) {
    const button = make("button", {type: "button", title: `Copy ${text}`}, "Copy");
    button.onclick = async () => {
        try {
            await navigator.clipboard.writeText(text);
            button.textContent = "Copied";
            say(`Copied: ${text}`);
        } catch {
            // Without permission: the text is at least selected.
            getSelection().selectAllChildren(button.previousElementSibling);
            button.textContent = "Selected";
        }
        setTimeout(() => { button.textContent = "Copy"; }, 2000);
    };
    return button;
}

// A table that shows ROWS of its rows at once. Each column is {title, number, cell(row), open(row)}; a
// cell is text, or [text, small text below it]. A column with `open` is made of buttons.
function pagedTable(caption, columns) {
    const body = make("tbody");
    const range = make("span"), back = make("button", {type: "button"}, "Previous");
    const on = make("button", {type: "button"}, "Next");
    const pager = make("div", {className: "pager"}, back, on, range);
    const heads = columns.map(it => make("th", {scope: "col", className: it.number ? "number" : ""}, it.title));
    const table = make("table", {}, make("caption", {className: "spoken"}, caption), make("thead", {}, make("tr", {}, ...heads)), body);
    let rows = [], first = 0;

    function makeRow() {
        let row = null;
        const cells = columns.map(column => {
            const main = column.open ? make("button", {type: "button", className: "link mono"}) : make("span", {className: column.mono ? "mono" : ""});
            if (column.open) main.onclick = () => column.open(row, main);
            return {column, main, small: make("small")};
        });
        const root = make("tr", {}, ...cells.map(it => make("td", {className: it.column.number ? "number" : ""}, it.main, it.small)));
        return {root, update(changed) {
            row = changed;
            for (const {column, main, small} of cells) {
                const [text, below] = [column.cell(row)].flat();
                write(main, text);
                // What is long may be broken anywhere; an address of IPv4 is not.
                main.classList.toggle("long", text.length > 20);
                write(small, below ?? "");
                show(small, Boolean(below));
            }
        }};
    }
    function render() {
        first = Math.max(0, Math.min(first, Math.floor((rows.length - 1) / ROWS) * ROWS));
        const shown = rows.slice(first, first + ROWS);
        reconcile(body, shown, makeRow);
        show(pager, rows.length > ROWS);
        // Not `disabled`: that would take the focus away.
        back.setAttribute("aria-disabled", String(first === 0));
        on.setAttribute("aria-disabled", String(first + ROWS >= rows.length));
        write(range, `${count(first + 1)}–${count(first + shown.length)} of ${count(rows.length)}`);
    }
    function turn(by) {
        first += by;
        render();
        say(range.textContent);
    }
    back.onclick = () => turn(-ROWS);
    on.onclick = () => turn(ROWS);
    return {root: make("div", {}, table, pager), update(changed) { rows = changed; render(); }, reset() { first = 0; }};
}

// ---------------------------------------------------------------- words and numbers

// A number as people read it; those beyond a trillion as weirctl prints them.
function count(value) {
    const number = BigInt(value);
    return number < 10n ** 12n ? number.toLocaleString("en-US") : Number(number).toExponential(2);
}

function counted(value, one, many = `${one}s`) {
    return `${count(value)} ${BigInt(value) === 1n ? one : many}`;
}

function percent(part, whole) {
    if (BigInt(whole) === 0n || BigInt(part) === 0n) return "0 %";
    const share = 100 * Number(part) / Number(whole);
    return share < 0.1 ? "< 0.1 %" : `${share < 10 ? share.toFixed(1) : Math.floor(share)} %`;
}

// A moment in the time of the reader's clock, with the date unless it is today's.
function when(text) {
    const date = new Date(text);
    if (text == null || Number.isNaN(date.getTime())) return text ?? "";
    const [day, time] = date.toLocaleString("sv-SE").split(" ");
    return day === new Date().toLocaleString("sv-SE").split(" ")[0] ? time : `${day} ${time.slice(0, 5)}`;
}

function isFull(block) {
    return block.used + block.reserved + block.cooling >= block.capacity;
}

function blockState(block) {
    const words = [isFull(block) ? "full" : block.used === 0 ? "empty" : percent(block.used, block.capacity)];
    if (block.cooling > 0) words.push(`${count(block.cooling)} cooling`);
    if (block.reserved > 0) words.push(`${count(block.reserved)} reserved`);
    return words.join(", ");
}

function describe(block) {
    const full = isFull(block) ? ", full" : "";
    const cooling = block.cooling > 0 ? `, ${count(block.cooling)} cooling` : "";
    const reserved = block.reserved > 0 ? `, ${count(block.reserved)} reserved` : "";
    return `${block.cidr} · ${block.node ?? "no node"} · ${count(block.used)} of ${count(block.capacity)} used${cooling}${reserved}${full}`;
}

// ---------------------------------------------------------------- the server

// Asks the server. What it says of a failure becomes the error's message.
async function ask(path) {
    const answer = await fetch(path, {cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS)});
    if (answer.ok) return answer;
    const told = await answer.json().catch(() => ({}));
    throw new Error(told.error ?? `${path.split("?")[0]}: status ${answer.status}`);
}

async function read(path) {
    const answer = await ask(path);
    return answer.json().catch(error => {
        throw isSilence(error) ? error : new Error(`${path.split("?")[0]}: the answer is not JSON`);
    });
}

// Runs `work` once at a time. Who asks meanwhile gets one more run, after a pause.
function oneAtATime(work, pause) {
    let running = false, again = false;
    return async () => {
        again = true;
        if (running) return;
        running = true;
        while (again) {
            again = false;
            await work().catch(error => console.error(error));
            await new Promise(done => setTimeout(done, pause));
        }
        running = false;
    };
}

// Whether there was no answer at all, for which fetch has these two.
function isSilence(error) {
    return error instanceof TypeError || error.name === "TimeoutError";
}

const refresh = oneAtATime(async () => {
    try {
        const state = await read("/api/state");
        // Another version serves another page.
        if (view.state && view.state.version !== state.version) location.reload();
        events.lostAt = null;
        showState(state);
    } catch (error) {
        if (isSilence(error)) events.lose();
        else showAlert(error.message);
    } finally {
        events.expect();
    }
}, REFRESH_PAUSE_MS);

const refreshDetails = oneAtATime(async () => {
    await Promise.all([reach.read(), search.again()]);
}, DETAILS_PAUSE_MS);

// Follows the event stream while the page is visible, and dials again when it ends. A page cannot see
// the comments that keep the stream alive, so it reads the state after a silence; without an answer the
// stream is lost. `source` is there from the dialling until the stream ends.
const events = {
    source: null, redial: null, silence: null,
    failures: 0,    // since the stream was open
    refusal: null,  // why the server gave none, if it told
    lostAt: null,   // since when nothing answers
    dial() {
        this.hangUp();
        this.source = new EventSource("/api/events");
        this.expect();
        this.source.onopen = () => {
            // Changes may have been missed, and the server's count may have begun again.
            if (this.failures > 0) refresh();
            this.failures = 0;
        };
        this.source.onerror = () => this.fail();
        this.source.addEventListener("changed", event => {
            this.expect();
            const isKnown = JSON.parse(event.data).generation === view.state?.generation && !view.state.offline;
            if (!isKnown) refresh();
        });
        this.source.addEventListener("offline", event => {
            this.expect();
            if (view.state) showState({...view.state, offline: JSON.parse(event.data)});
            else refresh();
        });
    },
    hangUp() {
        this.source?.close();
        this.source = null;
        clearTimeout(this.redial);
        clearTimeout(this.silence);
    },
    // A browser has about six connections to one server for all its pages: hidden ones leave them to others.
    pause() {
        this.hangUp();
        this.failures = 0;
    },
    expect() {
        clearTimeout(this.silence);
        if (this.source) this.silence = setTimeout(refresh, SILENCE_MS);
    },
    retry() {
        // It waits already, or the page is hidden.
        if (!this.source) return;
        this.hangUp();
        this.redial = setTimeout(() => this.dial(), Math.min(RETRY_MS * 2 ** this.failures, LONGEST_RETRY_MS));
        this.failures += 1;
    },
    // That a stream ends once is no news: the server ends each after an hour. The state tells whether it answers.
    async fail() {
        const isRefused = this.source.readyState === EventSource.CLOSED;
        this.retry();
        refresh();
        this.refusal = isRefused ? await refusalOf("/api/events") : null;
        if (this.refusal && view.state) showHealth();
    },
    lose() {
        this.lostAt ??= new Date().toISOString();
        this.retry();
        showHealth();
    },
};

// Why the server refuses something, of which EventSource does not tell.
async function refusalOf(path) {
    try {
        await (await ask(path)).body.cancel();
        return null;
    } catch (error) {
        return isSilence(error) ? null : error.message;
    }
}

// ---------------------------------------------------------------- the whole

function showState(state) {
    const isFirst = view.state === null;
    const changed = isFirst || state.generation !== view.state.generation;
    view.state = state;
    write($("about"), [state.datastore, state.here ? `this node: ${state.here}` : "not on a node", `Weir ${state.version}`].join(" · "));
    showHealth();
    showProblems(state);
    showPools(state);
    reach.showNodes(state);
    if (isFirst) performance.mark("map");
    if (isFirst) search.start();
    if (changed) panel.refresh();
    if (changed) refreshDetails();
}

// Says what keeps the page from being live, if anything does.
function showHealth() {
    const {lostAt, failures, refusal} = events, offline = view.state?.offline;
    if (lostAt) showAlert(`No answer from weirctl dashboard since ${when(lostAt)}. What is shown was known then. Trying again.`);
    else if (offline) showAlert(`Datastore offline since ${when(offline.since)}: ${offline.error}. What is shown was known then.`);
    else if (failures > 1) showAlert(`Changes show some seconds late, since the server does not tell of them: ${refusal ?? "its stream of events ends"}. Trying again.`, false);
    else showAlert(null);
}

// What is loud: nothing, or why what is shown may be old, and whether it is.
function showAlert(text, isOld = Boolean(text)) {
    show($("alert"), Boolean(text));
    write($("alert"), text || "");
    document.body.classList.toggle("stale", isOld);
    const time = view.state ? when(view.state.time) : "";
    write($("status"), text ? "not live" : `live, as of ${time}`);
    $("status").className = text ? "lost" : "live";
    const problems = view.state?.problems.length ?? 0;
    document.title = `${isOld ? "offline: " : problems > 0 ? `(${problems}) ` : ""}Weir${view.state?.here ? ` on ${view.state.here}` : ""}`;
}

// ---------------------------------------------------------------- problems

const SHOWN_PROBLEMS = 3;  // of each cure, until all are asked for

function showProblems({problems, checked, offline}) {
    const none = problems.length === 0;
    show($("calm"), none);
    const known = checked !== null && !offline;
    const at = checked === null ? "The datastore has not been checked for damage yet." : `The datastore was checked at ${when(checked)}.`;
    write($("calm"), `${known ? "Nothing is wrong." : "No problem is known."} ${at}`);
    $("calm").className = known ? "" : "unknown";
    const words = counted(problems.length, "problem");
    if (!none && words !== $("problem-count").textContent) say(words);
    show($("problem-count"), !none);
    write($("problem-count"), words);
    $("problem-count").className = problems.some(it => it.severity === "error") ? "error" : "warning";
    const groups = [...groupBy(problems, it => `${it.severity} ${it.cure}`)];
    const sorted = groups.sort(([, [one]], [, [other]]) => (other.severity === "error") - (one.severity === "error"));
    reconcile($("problem-list"), sorted, ([, [first]]) => problemPart(first), ([key]) => key);
}

function groupBy(items, keyOf) {
    const groups = new Map();
    for (const item of items) {
        const key = keyOf(item);
        if (!groups.has(key)) groups.set(key, []);
        groups.get(key).push(item);
    }
    return groups;
}

// The problems that one command cures.
function problemPart({severity, cure}) {
    const list = make("ul"), more = make("button", {type: "button", className: "link"});
    const body = make("div", {}, list, more);
    if (cure) body.append(make("div", {className: "cure"}, make("span", {className: "spoken"}, "Cure:"), make("code", {}, cure), copyButton(cure)));
    const root = make("li", {className: `problem ${severity}`}, make("span", {className: "severity"}, severity), body);
    let all = false, problems = [];
    function render() {
        const shown = all ? problems : problems.slice(0, SHOWN_PROBLEMS);
        reconcile(list, shown, () => {
            const about = make("b"), what = make("span");
            return {root: make("li", {}, about, " ", what), update(it) {
                // Most sentences name what they are about.
                write(about, it.what.includes(it.about) ? "" : it.about ?? "");
                write(what, it.what);
            }};
        });
        show(more, problems.length > SHOWN_PROBLEMS);
        write(more, all ? "Show fewer" : `Show ${count(problems.length - SHOWN_PROBLEMS)} more`);
    }
    more.onclick = () => { all = !all; render(); };
    return {root, update([, changed]) { problems = changed; render(); }};
}

// ---------------------------------------------------------------- pools

function showPools({pools, nodes}) {
    show($("no-pools"), pools.length === 0);
    show($("legend"), pools.length > 0);
    showLegend();
    const blocks = pools.reduce((sum, pool) => sum + pool.blocks.length, 0);
    const used = pools.reduce((sum, pool) => sum + BigInt(pool.used), 0n);
    write($("totals"), pools.length === 0 ? "" : `${counted(pools.length, "pool")}, ${counted(blocks, "block")}, ${counted(used, "address", "addresses")} used`);
    reconcile($("pool-list"), pools.map(pool => ({pool, nodes})), poolBand, it => it.pool.name);
}

// How many blocks the pool has room for. A /8 has far more than anybody claims, so that the map
// shows the claimed ones only, and this says how many there could be.
function possibleBlocks(pool) {
    return 2n ** BigInt(Math.max(0, pool.blockSize - Number(pool.cidr.split("/")[1])));
}

function poolFacts(pool) {
    const words = [pool.encapsulation === "none" ? "no encapsulation" : pool.encapsulation, pool.nat ? "NAT" : "no NAT", `blocks of /${pool.blockSize}`];
    return words.join(" · ");
}

// One pool: its numbers, the map of its blocks, and the same as a table.
function poolBand() {
    const name = make("h3"), cidr = make("span", {className: "mono"}), facts = make("span", {className: "muted"});
    const disabled = make("span", {className: "warn"}, "disabled: gives no new addresses");
    const toggle = make("button", {type: "button", "aria-pressed": "false"}, "As a table");
    const numbers = make("ul", {className: "numbers"});
    const map = blockMap(), body = make("div", {}, map.root), none = make("p", {className: "muted"}, "No block is claimed yet: the first container of a node claims one.");
    const root = make("section", {className: "pool"}, make("div", {className: "title"}, name, cidr, facts, disabled, toggle), numbers, body, none);
    let table = null, blocks = [];

    function showTable(wanted) {
        toggle.setAttribute("aria-pressed", String(wanted));
        table ??= pagedTable(`Blocks of pool ${name.textContent}`, [
            {title: "Block", cell: block => block.cidr, open: (block, from) => panel.open(block.cidr, from)},
            {title: "Node", cell: block => block.node ?? "no node"},
            {title: "Used", number: true, cell: block => `${count(block.used)} of ${count(block.capacity)}`},
            {title: "State", cell: blockState},
        ]);
        table.update(blocks);
        body.replaceChildren(wanted ? table.root : map.root);
        if (!wanted) map.layOut();
    }
    toggle.onclick = () => showTable(!table?.root.isConnected);

    function update({pool, nodes}) {
        blocks = pool.blocks.map(([cidr, node, used, capacity, reserved, cooling]) => (
            {cidr, node: nodes[node]?.name ?? null, used, capacity, reserved, cooling, pool: pool.name}));
        write(name, pool.name);
        write(cidr, pool.cidr);
        write(facts, poolFacts(pool));
        show(disabled, pool.disabled);
        const figures = [
            [count(pool.used), `used, ${percent(pool.used, pool.total)}`], [count(pool.free), "free"], [count(pool.reserved), "reserved"],
            [count(pool.cooling), "cooling"], [count(pool.borrowed), "borrowed"], [`${count(blocks.length)} of ${count(possibleBlocks(pool))}`, "blocks"],
        ];
        reconcile(numbers, figures, () => {
            const value = make("span"), words = make("span", {className: "muted"});
            return {root: make("li", {}, value, " ", words), update([text, kind]) {
                write(value, text);
                write(words, kind);
                value.className = text === "0" ? "muted" : "";
            }};
        });
        show(none, blocks.length === 0);
        show(body, blocks.length > 0);
        show(toggle, blocks.length > 0);
        map.update(pool.name, blocks);
        if (table?.root.isConnected) table.update(blocks);
    }
    return {root, map, update, showMap() { if (table?.root.isConnected) showTable(false); }};
}

// ---------------------------------------------------------------- the map

const palette = {};

function readPalette() {
    const style = getComputedStyle(document.documentElement);
    for (const name of ["ground", "full", "reserved", "muted", "control"]) palette[name] = style.getPropertyValue(`--${name}`).trim();
    palette.dark = matchMedia("(prefers-color-scheme: dark)").matches;
    palette.ofNode = new Map();
}

// The colours of a node: always the same for a name, of the same lightness for all, so that no
// node looks more important than another.
function nodeColours(node) {
    let colours = palette.ofNode.get(node);
    if (colours) return colours;
    let hash = 2166136261;
    for (const letter of node) hash = Math.imul(hash ^ letter.codePointAt(0), 16777619) >>> 0;
    const hue = hash % 360, chroma = [0.09, 0.13, 0.16][(hash >>> 12) % 3];
    const colour = (lightness, share) => `oklch(${lightness} ${(chroma * share).toFixed(3)} ${hue})`;
    colours = palette.dark
        ? {used: colour(0.74, 0.9), cooling: colour(0.5, 0.6), free: colour(0.32, 0.45)}
        : {used: colour(0.57, 1), cooling: colour(0.76, 0.7), free: colour(0.91, 0.3)};
    palette.ofNode.set(node, colours);
    return colours;
}

// The size of a cell and the distance between two, in CSS pixels: the more blocks, the smaller.
function cellSize(blocks) {
    if (blocks <= 60) return {size: 30, pitch: 34};
    if (blocks <= 600) return {size: 18, pitch: 21};
    if (blocks <= 3000) return {size: 12, pitch: 14};
    return blocks <= 20000 ? {size: 8, pitch: 10} : {size: 5, pitch: 6};
}

// A cell: used addresses fill it from below, cooling ones stand on them, reserved ones hang from
// above. A full block has a bar in the colour of text, a block of no node has a frame.
function drawCell(context, x, y, size, block) {
    const colours = block.node === null ? {used: palette.muted, cooling: palette.reserved, free: palette.ground} : nodeColours(block.node);
    const paint = (colour, top, height) => { context.fillStyle = colour; context.fillRect(x, y + top, size, height); };
    const height = addresses => addresses === 0 ? 0 : Math.max(1, Math.round(size * addresses / block.capacity));
    const full = isFull(block);
    const used = full ? height(block.used) : Math.min(height(block.used), size - 1);
    const cooling = Math.min(height(block.cooling), size - used);
    context.clearRect(x, y, size, size);
    paint(colours.free, 0, size);
    if (block.reserved > 0) paint(palette.reserved, 0, Math.min(height(block.reserved), size - used - cooling));
    if (cooling > 0) paint(colours.cooling, size - used - cooling, cooling);
    if (used > 0) paint(colours.used, size - used, used);
    if (full) paint(palette.full, 0, Math.max(1, Math.round(size / 5)));
    if (block.node === null) {
        context.strokeStyle = palette.control;
        context.lineWidth = 1;
        context.strokeRect(x + 0.5, y + 0.5, size - 1, size - 1);
    }
}

function sameBlock(one, other) {
    return Object.keys(one).every(key => one[key] === other[key]);
}

// The blocks of a pool as cells of a canvas, one tab stop. Cursor, marks and flashes are elements
// over it, so that moving them draws nothing.
function blockMap() {
    const canvas = make("canvas", {tabIndex: 0, role: "application", "aria-roledescription": "map of blocks"});
    const context = canvas.getContext("2d");
    const cursor = make("div", {className: "cursor", hidden: true}), tip = make("div", {className: "tip", hidden: true, "aria-hidden": "true"});
    const marks = make("div"), root = make("div", {className: "map"}, canvas, marks, cursor, tip);
    let blocks = [], at = new Map(), grid = {size: 18, pitch: 21, columns: 1}, current = null, drawn = "";

    const place = index => [(index % grid.columns) * grid.pitch, Math.floor(index / grid.columns) * grid.pitch];
    const draw = index => drawCell(context, ...place(index), grid.size, blocks[index]);

    function cover(element, index) {
        const [x, y] = place(index);
        Object.assign(element.style, {left: `${x}px`, top: `${y}px`, width: `${grid.size}px`, height: `${grid.size}px`});
    }
    // Computes the grid for the room there is. Draws all if that changed, or if asked to.
    function layOut(again = false) {
        const width = root.clientWidth;
        if (width === 0 || blocks.length === 0) return;
        const {size, pitch} = cellSize(blocks.length);
        const columns = Math.max(1, Math.floor((width + pitch - size) / pitch)), rows = Math.ceil(blocks.length / columns);
        const [w, h] = [Math.min(columns, blocks.length) * pitch - pitch + size, rows * pitch - pitch + size];
        // Browsers limit the area of a canvas; telephones have it at 16 million pixels.
        const scale = Math.min(devicePixelRatio, Math.sqrt(16e6 / (w * h)));
        grid = {size, pitch, columns};
        const wanted = `${w} ${h} ${scale}`;
        if (drawn !== wanted) {
            canvas.width = Math.round(w * scale);
            canvas.height = Math.round(h * scale);
            canvas.style.width = `${w}px`;
            canvas.style.height = `${h}px`;
        }
        if (drawn !== wanted || again) {
            context.setTransform(scale, 0, 0, scale, 0, 0);
            context.clearRect(0, 0, w, h);
            for (let index = 0; index < blocks.length; index++) draw(index);
            drawn = wanted;
        }
        showCursor();
        showMarks();
    }
    function update(pool, changed) {
        const old = blocks;
        const dirty = changed.flatMap((block, index) => {
            const before = old[at.get(block.cidr)];
            return before && sameBlock(before, block) ? [] : [index];
        });
        blocks = changed;
        if (old.length === changed.length && old.every((block, index) => block.cidr === changed[index].cidr)) {
            if (drawn) dirty.forEach(draw);
            showTip();
        } else {
            at = new Map(changed.map((block, index) => [block.cidr, index]));
            canvas.setAttribute("aria-label", `Blocks of pool ${pool}: ${counted(changed.length, "block")}. Arrow keys move, Enter opens a block.`);
            layOut(true);
        }
        if (old.length > 0) flash(dirty);
    }
    function flash(indices) {
        if (!drawn || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
        for (const index of indices.slice(0, FLASHES)) {
            const element = make("div", {className: "flash", onanimationend: () => element.remove()});
            cover(element, index);
            root.append(element);
        }
    }

    function showCursor() {
        const index = at.get(current);
        show(cursor, index !== undefined);
        if (index !== undefined) cover(cursor, index);
        showTip();
    }
    // The text under the cursor: beside the cell, within the map's width.
    function showTip() {
        const index = at.get(current);
        const wanted = index !== undefined && (document.activeElement === canvas || root.matches(":hover"));
        show(tip, wanted);
        show(cursor, wanted || current !== null && current === panel.cidr);
        if (!wanted) return;
        write(tip, describe(blocks[index]));
        const [x, y] = place(index);
        const left = Math.max(0, Math.min(x, root.clientWidth - tip.offsetWidth));
        const above = y - tip.offsetHeight - 6;
        tip.style.transform = `translate(${left}px, ${above > 0 ? above : y + grid.size + 6}px)`;
    }
    function move(index, byKey) {
        const cidr = blocks[Math.max(0, Math.min(index, blocks.length - 1))]?.cidr ?? null;
        if (cidr === current && !byKey) return;
        current = cidr;
        showCursor();
        if (!byKey || current === null) return;
        cursor.scrollIntoView({block: "nearest", inline: "nearest"});
        say(describe(blocks[at.get(current)]));
    }
    function indexAt(event) {
        const column = Math.floor(event.offsetX / grid.pitch), row = Math.floor(event.offsetY / grid.pitch);
        const index = row * grid.columns + column;
        return column >= 0 && column < grid.columns && index < blocks.length ? index : null;
    }

    // Rings around blocks that were searched for.
    function showMarks() {
        const wanted = view.marked.filter(cidr => at.has(cidr)).slice(0, MARKS);
        root.parentElement?.classList.toggle("searching", wanted.length > 0);
        reconcile(marks, wanted, () => {
            const element = make("div", {className: "mark"});
            return {root: element, update(cidr) {
                cover(element, at.get(cidr));
                const {node} = blocks[at.get(cidr)];
                element.style.backgroundColor = node === null ? palette.muted : nodeColours(node).used;
            }};
        }, cidr => cidr);
    }

    canvas.onpointermove = event => { const index = indexAt(event); if (index !== null) move(index, false); };
    canvas.onpointerleave = showTip;
    canvas.onclick = event => {
        const index = indexAt(event);
        if (index === null) return;
        move(index, false);
        panel.open(blocks[index].cidr, canvas);
    };
    // A pointer that brings the focus says itself which block it means, and must not see it scroll away.
    canvas.onfocus = () => { if (canvas.matches(":focus-visible")) move(at.get(current) ?? 0, true); };
    canvas.onblur = showTip;
    canvas.onkeydown = event => {
        const index = at.get(current) ?? 0, page = 10 * grid.columns, last = blocks.length - 1;
        const down = by => index + by <= last ? index + by : index;
        const keys = {
            ArrowLeft: index - 1, ArrowRight: index + 1, ArrowUp: index >= grid.columns ? index - grid.columns : index, ArrowDown: down(grid.columns),
            Home: 0, End: last, PageUp: index >= page ? index - page : index % grid.columns, PageDown: index + page <= last ? index + page : last,
        };
        if (event.ctrlKey || event.altKey || event.metaKey) return;
        if (event.key in keys) move(keys[event.key], true);
        else if (event.key === "Enter" || event.key === " ") panel.open(blocks[index].cidr, canvas);
        else return;
        event.preventDefault();
    };
    new ResizeObserver(() => layOut()).observe(root);

    return {
        root, update, layOut, showMarks,
        find: cidr => blocks[at.get(cidr)] ?? null,
        blocksOf: node => blocks.filter(block => block.node === node).map(block => block.cidr),
        scrollTo: cidr => marks.parts?.get(cidr)?.root.scrollIntoView({block: "nearest"}),
    };
}

// What the map shows, by example. Few nodes have their colours explained, too.
function showLegend() {
    const block = (used, more = {}) => ({node: "node-1", used, capacity: 64, reserved: 0, cooling: 0, ...more});
    const kinds = [
        ["colour: node, height: use", block(36)], ["bar on top: full", block(64)], ["paler: cooling", block(20, {cooling: 24})],
        ["grey from above: reserved", block(20, {reserved: 24})], ["frame: no node", block(24, {node: null})],
    ];
    const nodes = view.state?.nodes.filter(node => node.blocks > 0) ?? [];
    if (nodes.length <= KEY_NODES) for (const node of nodes) kinds.push([node.name, block(64, {node: node.name, capacity: 65})]);
    const part = () => {
        const canvas = make("canvas", {"aria-hidden": "true"}), words = make("span");
        return {root: make("li", {}, canvas, words), update([text, example]) {
            write(words, text);
            canvas.width = canvas.height = 16 * devicePixelRatio;
            const context = canvas.getContext("2d");
            context.scale(devicePixelRatio, devicePixelRatio);
            drawCell(context, 0, 0, 16, example);
        }};
    };
    reconcile($("legend"), kinds, part);
}

function findBlock(cidr) {
    for (const band of bands()) {
        const block = band.map.find(cidr);
        if (block) return {block, band};
    }
    return null;
}

// ---------------------------------------------------------------- one block

const panel = {
    cidr: null, opener: null, table: null,
    open(cidr, opener) {
        this.cidr = cidr;
        this.opener = opener;
        write($("panel-title"), cidr);
        this.table?.reset();
        this.table?.update([]);
        show($("panel"), true);
        $("panel").scrollTop = 0;
        this.refresh();
        writeFragment();
        $("panel-title").focus();
    },
    close() {
        show($("panel"), false);
        this.cidr = null;
        writeFragment();
        (this.opener?.isConnected ? this.opener : $("query")).focus();
    },
    // Reads the block's addresses again if what is known of the block changed.
    async refresh() {
        const cidr = this.cidr;
        if (cidr === null) return;
        const known = findBlock(cidr)?.block;
        const free = known && Math.max(0, known.capacity - known.used - known.reserved - known.cooling);
        write($("panel-about"), known
            ? `Pool ${known.pool}, ${known.node ?? "no node"}: ${count(known.used)} of ${count(known.capacity)} used, ${count(free)} free`
            : "This block is not there any more.");
        try {
            const block = known ? await read(`/api/block?cidr=${encodeURIComponent(cidr)}`) : {addresses: null};
            if (cidr === this.cidr) this.show(block);
        } catch (error) {
            if (cidr === this.cidr && !isSilence(error)) note($("panel-note"), error.message, true);
        }
    },
    show({addresses, node}) {
        note($("panel-note"), addresses?.length === 0 ? "None of its addresses is in use." : "");
        this.table ??= pagedTable("Addresses of the block", [
            {title: "Address", mono: true, cell: it => [it.address, [it.state === "used" ? "" : it.state, when(it.since)].filter(Boolean).join(" ")]},
            {title: "Who has it", cell: owner},
        ]);
        if (!this.table.root.isConnected) $("panel-addresses").append(this.table.root);
        show(this.table.root, addresses?.length > 0);
        this.table.update((addresses ?? []).map(it => ({...it, elsewhere: it.node !== node && it.node})));
    },
};

// Who has an address, in the best words that are known: [name, what else is known].
function owner(it) {
    const pod = it.pod && (it.namespace ? `${it.namespace}/${it.pod}` : it.pod);
    const container = it.container && `container ${it.container.length > 16 ? it.container.slice(0, 12) : it.container}`;
    const name = pod ?? container ?? it.type ?? it.handle ?? (it.state === "used" ? "unknown" : "no container");
    const more = [pod && container, it.interface, it.network && `network ${it.network}`, it.elsewhere && `on ${it.elsewhere}`, name === it.type && it.handle && `handle ${it.handle}`];
    return [name, more.filter(Boolean).join(" · ")];
}

function note(element, text, failed = false) {
    show(element, text !== "");
    write(element, text);
    element.className = failed ? "failed" : "muted";
}

// ---------------------------------------------------------------- nodes

const reach = {
    to: [], remark: "", chosen: null, table: null, families: 1,

    showNodes({nodes, here}) {
        show($("no-nodes"), nodes.length === 0);
        show($("reach"), nodes.length > 0);
        write($("node-total"), nodes.length === 0 ? "" : counted(nodes.length, "node"));
        const names = nodes.map(node => node.name);
        if (!names.includes(view.from)) view.from = names.includes(here) ? here : names[0] ?? null;
        const select = $("from");
        if (select.options.length !== names.length || names.some((name, at) => select.options[at].value !== name)) {
            select.replaceChildren(...names.map(name => make("option", {value: name}, name === here ? `${name} (this node)` : name)));
        }
        select.value = view.from ?? "";
        const node = nodes.find(it => it.name === view.from);
        if (!node) return;
        const facts = [node.ipv4, node.ipv6, counted(node.blocks, "block"), counted(node.addresses, "address", "addresses")];
        if (node.problems > 0) facts.push(counted(node.problems, "problem"));
        write($("from-about"), facts.filter(Boolean).join(" · ") + (node.ipv4 || node.ipv6 ? "" : " · no address registered"));
    },

    async read() {
        const from = view.from;
        if (from === null) return;
        try {
            const answer = await read(`/api/reach?from=${encodeURIComponent(from)}`);
            if (from !== view.from) return;
            this.to = answer.to;
            const isOnly = view.state.nodes.length === 1;
            this.remark = this.to.length > 0 ? "" : isOnly ? `${from} is the only node.` : `${from} has no way to the containers of another node.`;
        } catch (error) {
            if (isSilence(error) || from !== view.from) return;
            this.to = [];
            this.remark = error.message;
        }
        this.render();
    },

    // Groups first: a thousand nodes are mostly reached in one way.
    render() {
        this.families = new Set(this.to.map(it => it.family)).size;
        const groups = groupByWay(this.to);
        if (!groups.has(this.chosen)) this.chosen = null;
        // What is not reached comes first if containers are there, and last if the pool has no block.
        const inUse = new Set(view.state.pools.filter(pool => pool.blocks.length > 0).map(pool => pool.name));
        const weight = ([, [{how, pools}]]) => how !== "none" ? 0 : pools.some(name => inUse.has(name)) ? 1 : -1;
        const sorted = [...groups].sort((one, other) => weight(other) - weight(one) || other[1].length - one[1].length);
        reconcile($("ways"), sorted, ([key]) => {
            const number = make("b"), words = make("span"), pools = make("small");
            const button = make("button", {type: "button", className: "way"}, number, make("span", {}, words, pools));
            button.onclick = () => {
                this.chosen = this.chosen === key ? null : key;
                this.table?.reset();
                this.render();
            };
            return {root: make("li", {}, button), update: group => {
                const [, members] = group;
                write(number, count(members.length));
                write(words, this.wayInWords(members[0], members.length));
                write(pools, members[0].pools.join(", "));
                button.setAttribute("aria-pressed", String(this.chosen === key));
                button.classList.toggle("lost", weight(group) > 0);
            }};
        }, ([key]) => key);
        show($("reach-filter"), this.to.length > 0);
        this.list(groups);
    },

    // The list of one way, or of what the filter finds. Without either there is none.
    list(groups) {
        const filter = $("filter").value.trim().toLowerCase();
        const rows = (this.chosen ? groups.get(this.chosen) : filter ? this.to : []).filter(it => (
            [it.node, it.nextHop, it.device].some(text => text?.toLowerCase().includes(filter))));
        this.table ??= pagedTable("Other nodes", [
            {title: "Node", open: it => search.ask(it.node), cell: it => it.node},
            {title: "How", cell: it => [this.route(it), it.why]},
        ]);
        if (!this.table.root.isConnected) $("reach-list").append(this.table.root);
        show(this.table.root, rows.length > 0);
        this.table.update(rows);
        note($("reach-note"), filter && rows.length === 0 ? `No node matches “${filter}”.` : this.remark);
    },

    wayInWords({how, device, family}, members) {
        const noun = members === 1 ? "node" : "nodes";
        const words = how === "none" ? `${noun} not reached` : `${noun} by ${how === "direct" ? "direct route" : how}${device ? ` over ${device}` : ""}`;
        return this.families > 1 ? `${words}, IPv${family}` : words;
    },

    // As `ip route` says it.
    route({how, nextHop, device, family}) {
        const words = [how === "none" ? "not reached" : how, nextHop && `via ${nextHop}`, device && `dev ${device}`];
        return words.filter(Boolean).join(" ") + (this.families > 1 ? ` (IPv${family})` : "");
    },
};

function groupByWay(to) {
    return groupBy(to, it => `${it.how} ${it.device ?? ""} ${it.family} ${it.pools}`);
}

// ---------------------------------------------------------------- search

const search = {
    query: "", asked: 0, timer: null,

    start() {
        const wanted = readFragment();
        if (wanted.from && view.state.nodes.some(node => node.name === wanted.from)) view.from = $("from").value = wanted.from;
        reach.showNodes(view.state);
        this.ask(wanted.q ?? "");
        if (wanted.block) panel.open(wanted.block, null);
        else if (panel.cidr !== null) panel.close();
    },
    // Puts a query into the box and answers it at once.
    ask(query) {
        $("query").value = query;
        return this.run(query, true);
    },
    typed(query) {
        clearTimeout(this.timer);
        this.timer = setTimeout(() => this.run(query.trim(), false), TYPING_PAUSE_MS);
    },
    again() {
        return this.query ? this.run(this.query, false) : null;
    },
    // The last question wins, whichever answer comes last.
    async run(query, scroll) {
        const isNew = query !== this.query;
        this.query = query;
        // What is asked again must not keep what is being typed from being asked.
        if (isNew) clearTimeout(this.timer);
        if (isNew) writeFragment();
        const turn = ++this.asked;
        if (!query) return this.show({query, answers: [], note: null}, false);
        try {
            const answer = await read(`/api/search?q=${encodeURIComponent(query)}`);
            if (turn === this.asked) this.show(answer, isNew, scroll);
        } catch (error) {
            if (turn === this.asked && !isSilence(error)) this.show({query, answers: [], note: error.message, failed: true}, isNew);
        }
    },
    show({query, answers, note: remark, failed = false}, isNew, scroll = false) {
        show($("answers"), query !== "");
        const nothing = failed ? "The search failed" : `Nothing found for “${query}”`;
        const title = answers.length === 0 ? nothing : counted(answers.length, "answer");
        write($("answers-title"), title);
        note($("answers-note"), remark ?? "", failed);
        reconcile($("answer-list"), answers, answerPart);
        mark(answers);
        if (!isNew) return;
        if (query) say(`${title}${answers[0] ? `, first ${answers[0].kind} ${answers[0].title}` : ""}`);
        $("found").scrollTop = 0;
        if (scroll && answers.length > 0) scrollToMark();
    },
};

function answerPart() {
    const kind = make("span", {className: "kind"}), title = make("span", {className: "mono"});
    const lines = make("dl"), history = make("ul"), historyTitle = make("p", {className: "muted"}, "History");
    const links = make("p");
    const root = make("article", {className: "answer"}, make("h3", {}, title, " ", kind), lines, historyTitle, history, links);
    const pair = () => {
        const term = make("dt"), value = make("dd");
        return {root: make("div", {}, term, value), update([key, text]) { write(term, key); write(value, text); }};
    };
    return {root, update(answer) {
        write(kind, answer.kind);
        write(title, answer.title);
        reconcile(lines, answer.lines, pair);
        show(historyTitle, answer.history.length > 0);
        reconcile(history, answer.history, () => {
            const what = make("span"), time = make("small");
            return {root: make("li", {}, what, time), update(it) {
                write(what, it.what);
                write(time, `${when(it.from)} to ${it.until ? when(it.until) : "now"}`);
            }};
        });
        const targets = [];
        if (answer.block) targets.push({words: `Show block ${answer.block}`, go: button => { revealBlock(answer.block); panel.open(answer.block, button); }});
        if (answer.node && answer.kind !== "node") targets.push({words: `Node ${answer.node}`, go: () => search.ask(answer.node)});
        if (answer.kind === "node" && answer.node) targets.push({words: "Whom it reaches", go: () => showWaysFrom(answer.node)});
        reconcile(links, targets, () => {
            const button = make("button", {type: "button", className: "link"});
            return {root: button, update(it) { write(button, it.words); button.onclick = () => it.go(button); }};
        });
    }};
}

// Marks the blocks of the answers in the maps; of a node all that it has.
function mark(answers) {
    const marked = new Set(answers.map(answer => answer.block).filter(Boolean));
    for (const {node} of answers.filter(answer => answer.kind === "node")) {
        for (const band of bands()) band.map.blocksOf(node).forEach(cidr => marked.add(cidr));
    }
    view.marked = [...marked];
    for (const band of bands()) band.map.showMarks();
}

function revealBlock(cidr) {
    const found = findBlock(cidr);
    found?.band.showMap();
    found?.band.map.scrollTo(cidr);
}

function scrollToMark() {
    // On a narrow page the answers are above the maps: they stay in view.
    if (view.marked.length > 0 && getComputedStyle($("found")).position === "fixed") revealBlock(view.marked[0]);
}

function chooseFrom(node) {
    view.from = $("from").value = node;
    reach.chosen = null;
    reach.showNodes(view.state);
    writeFragment();
    return reach.read();
}

// From an answer: it makes room, since on a wide page it covers the nodes.
function showWaysFrom(node) {
    search.ask("");
    if (panel.cidr !== null) panel.close();
    chooseFrom(node);
    $("from").focus();
}

// ---------------------------------------------------------------- the address of the page

// What is looked at, so that it can be sent to somebody.
function readFragment() {
    return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
}

function writeFragment() {
    const standard = view.state?.here ?? view.state?.nodes[0]?.name;
    const parts = {q: search.query, block: panel.cidr, from: view.from === standard ? null : view.from};
    const text = new URLSearchParams(Object.entries(parts).filter(([, value]) => value)).toString();
    history.replaceState(null, "", text ? `#${text}` : location.pathname);
}

// ---------------------------------------------------------------- begin

function follow() {
    if (document.hidden) return events.pause();
    refresh();
    events.dial();
}

function listen() {
    $("search").onsubmit = event => { event.preventDefault(); search.run($("query").value.trim(), true); };
    $("query").oninput = () => search.typed($("query").value);
    $("from").onchange = () => chooseFrom($("from").value);
    $("filter").oninput = () => { reach.table?.reset(); reach.list(groupByWay(reach.to)); };
    $("panel-close").onclick = () => panel.close();
    $("answers-close").onclick = () => { search.ask(""); $("query").focus(); };
    document.addEventListener("keydown", event => {
        const typing = event.target.closest?.("input, select, textarea");
        if (event.key === "/" && !typing && !event.ctrlKey && !event.altKey && !event.metaKey) {
            event.preventDefault();
            $("query").focus();
            $("query").select();
        }
        if (event.key !== "Escape") return;
        if (panel.cidr !== null) panel.close();
        else if (search.query || $("query").value) { search.ask(""); $("query").focus(); }
    });
    addEventListener("hashchange", () => { if (view.state) search.start(); });
    document.addEventListener("visibilitychange", follow);
    const repaint = () => { readPalette(); showLegend(); for (const band of bands()) band.map.layOut(true); };
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
    // Zooming changes the ratio, and with it how sharp a canvas must be.
    addEventListener("resize", () => { showLegend(); for (const band of bands()) band.map.layOut(); });
    const sticky = [document.querySelector("header"), $("alert")];
    const observer = new ResizeObserver(() => {
        const height = sticky.reduce((sum, it) => sum + (getComputedStyle(it).position === "sticky" ? it.offsetHeight : 0), 0);
        document.documentElement.style.setProperty("--top", `${height}px`);
    });
    sticky.forEach(it => observer.observe(it));
}

readPalette();
listen();
refresh();
if (!document.hidden) events.dial();

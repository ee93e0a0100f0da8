// A server that gives the page what a test wants: states that are hard to make in a real datastore.

import {createHash} from "node:crypto";
import {readFile} from "node:fs/promises";
import {createServer} from "node:http";
import {addressesOf, answersTo, reachOf} from "./worlds.js";

const PAGE = new URL("../../ctl/src/dashboard/page/", import.meta.url);

// The page and its policy, put together as the real server does it.
async function page() {
    const [html, style, script] = await Promise.all(["page.html", "page.css", "page.js"].map(name => readFile(new URL(name, PAGE), "utf8")));
    const hash = text => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;
    const policy = `default-src 'none'; connect-src 'self'; img-src data:; script-src ${hash(script)}; style-src ${hash(style)}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`;
    return {policy, body: html.replace("<!-- style -->", () => style).replace("<!-- script -->", () => script)};
}

// Serves `state` at a port of its own, or at `port`.
export async function serve(state, port = 0) {
    const {policy, body} = await page();
    const streams = new Set();
    const fixture = {
        state,
        // Milliseconds by which the answer to a query, or at a path, is late.
        delays: new Map(),
        // The streams that are open, when one was asked for, and why none is given.
        streams,
        dials: [],
        refusal: null,
        // Changes the state and tells all pages.
        change(edit) {
            edit(fixture.state);
            fixture.state.generation += 1;
            fixture.send("changed", {generation: fixture.state.generation});
        },
        goOffline(error) {
            fixture.state.offline = {since: new Date().toISOString(), error};
            fixture.send("offline", fixture.state.offline);
        },
        send(event, data) {
            for (const stream of streams) stream.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
        },
        endStreams() {
            for (const stream of streams) stream.end();
        },
        async stop() {
            const closed = new Promise(done => server.close(done));
            server.closeAllConnections();
            await closed;
        },
    };
    const routes = {
        "/api/state": () => fixture.state,
        "/api/block": query => addressesOf(fixture.state, query.get("cidr")),
        "/api/reach": query => reachOf(fixture.state, query.get("from")),
        "/api/search": query => answersTo(fixture.state, query.get("q")),
    };
    const server = createServer(async (request, answer) => {
        const url = new URL(request.url, "http://localhost");
        if (url.pathname === "/") {
            answer.writeHead(200, {"content-type": "text/html; charset=utf-8", "content-security-policy": policy}).end(body);
        } else if (url.pathname === "/api/events") {
            if (request.headers.accept === "text/event-stream") fixture.dials.push(performance.now());
            if (fixture.refusal) return answer.writeHead(503, {"content-type": "application/json"}).end(JSON.stringify({error: fixture.refusal}));
            answer.writeHead(200, {"content-type": "text/event-stream"});
            answer.write(`event: changed\ndata: {"generation": ${fixture.state.generation}}\n\n`);
            streams.add(answer);
            answer.on("close", () => streams.delete(answer));
        } else {
            const found = routes[url.pathname]?.(url.searchParams) ?? null;
            // As it was when it was asked for, however late.
            const value = structuredClone(found);
            await new Promise(done => setTimeout(done, fixture.delays.get(url.searchParams.get("q") ?? url.pathname) ?? 0));
            answer.writeHead(value === null ? 404 : 200, {"content-type": "application/json", "cache-control": "no-store"});
            answer.end(JSON.stringify(value ?? {error: `${url.pathname}: no such thing; look at /`}));
        }
    });
    await new Promise(done => server.listen(port, "127.0.0.1", done));
    fixture.port = server.address().port;
    fixture.url = `http://127.0.0.1:${fixture.port}/`;
    return fixture;
}

// What the page does with states that are hard to make in a datastore.

import assert from "node:assert/strict";
import {after, before, test} from "node:test";
import {NARROW, WIDE, assertAccessible, assertFits, firstMap, launch, open} from "./browser.js";
import {serve} from "./fixture.js";
import * as worlds from "./worlds.js";

let browser;
before(async () => { browser = await launch(); });
after(() => browser.close());

// Runs `body` with a page on `world`, then checks the page and ends all.
async function on(world, options, body) {
    const fixture = await serve(world);
    fixture.refusal = options.refusal ?? null;
    try {
        const page = await open(browser, fixture.url + (options.fragment ?? ""), options);
        await body(page, fixture);
        page.check();
        await page.context().close();
    } finally {
        await fixture.stop();
    }
}

const text = (page, selector) => page.locator(selector).textContent();
const focused = page => page.evaluate(() => document.activeElement.id || document.activeElement.tagName);

for (const [name, viewport] of [["wide", WIDE], ["narrow", NARROW]]) {
    for (const colorScheme of ["light", "dark"]) {
        test(`nothing hinders people with disabilities: ${name}, ${colorScheme}`, async () => {
            for (const world of ["troubled", "hostile", "empty", "single"]) {
                await on(worlds[world](), {viewport, colorScheme}, async page => {
                    await assertFits(page, world);
                    await assertAccessible(page, world);
                    if (world === "empty") return;
                    await firstMap(page).focus();
                    await page.keyboard.press("Enter");
                    await page.locator("#panel tbody tr").first().waitFor();
                    await assertFits(page, `${world} with the panel`);
                    await assertAccessible(page, `${world} with the panel`);
                });
            }
        });
    }
}

test("answers, lists and tables are accessible, too, and fit at 320 pixels", async () => {
    for (const viewport of [WIDE, {width: 320, height: 640}]) {
        await on(worlds.large(), {viewport, fragment: "#q=10.0.9.3"}, async page => {
            await page.locator(".answer").waitFor();
            await page.getByRole("button", {name: "As a table"}).first().click();
            await assertFits(page, "answers and a table");
            await assertAccessible(page, "answers and a table");
            await page.getByRole("button", {name: "Close"}).click();
            await page.locator(".way").first().click();
            await assertFits(page, "a table and nodes");
            await assertAccessible(page, "a table and nodes");
        });
    }
});

test("what is known only while it is offline is legible", async () => {
    for (const colorScheme of ["light", "dark"]) {
        await on(worlds.troubled(), {colorScheme}, async (page, fixture) => {
            fixture.goOffline("connection refused");
            await page.locator("#alert:visible").waitFor();
            await assertAccessible(page, `offline, ${colorScheme}`);
        });
    }
});

test("names are text, whatever they contain", async () => {
    for (const viewport of [WIDE, NARROW]) {
        await on(worlds.hostile(), {viewport, fragment: "#q=%3Cimg"}, async (page, fixture) => {
            await page.locator(".answer").waitFor();
            const name = fixture.state.pools[0].name;
            assert.equal(await page.locator(".pool h3").first().textContent(), name);
            assert.equal(await page.locator(".answer h3 .mono").first().textContent(), name);
            assert.equal(await page.locator("img").count(), 0);
            assert.match(await page.title(), /Weir on <img/);
            await assertFits(page, "long names");
        });
    }
});

test("a pool tells how much room it has, and for how many blocks", async () => {
    await on(worlds.large(), {}, async page => {
        const numbers = await page.locator(".pool .numbers").first().innerText();
        assert.match(numbers.replace(/\s+/g, " "), /363,074 used, 2.2 % 16,414,142 free 356 reserved 8,442 cooling 12 borrowed 10,000 of 262,144 blocks/);
        assert.match(await page.locator(".pool").nth(2).innerText(), /172.20.0.0\/16[^]*VXLAN Always[^]*disabled: gives no new addresses/);
        assert.match(await page.locator(".pool").nth(3).innerText(), /No block is claimed yet/);
    });
});

test("states without content say what to do", async () => {
    await on(worlds.empty(), {}, async page => {
        assert.match(await text(page, "#pools"), /There is no pool.*weirctl init/);
        assert.match(await text(page, "#nodes"), /No node is registered.*weirctl node run/);
        assert.match(await text(page, "#calm"), /No problem is known. The datastore has not been checked/);
    });
    await on(worlds.single(), {}, async page => {
        await page.getByText("alone is the only node.").waitFor();
    });
});

test("the keyboard alone gets everywhere", async () => {
    await on(worlds.large(), {}, async page => {
        const live = () => text(page, "#live");
        await page.keyboard.press("/");
        assert.equal(await focused(page), "query");
        // The button of the pool, then its map: one stop for ten thousand blocks.
        await page.keyboard.press("Tab");
        await page.keyboard.press("Tab");
        assert.equal(await focused(page), "CANVAS");
        assert.equal(await live(), "10.0.0.0/26 · node-0001 · 64 of 64 used, 4 reserved, full");
        await page.keyboard.press("ArrowRight");
        assert.match(await live(), /^10\.0\.0\.64\/26 · node-0390 · 22 of 64 used/);
        await page.keyboard.press("End");
        assert.match(await live(), /^10\.9\.195\.192\/26 /);
        assert.match(await page.locator(".tip:visible").textContent(), /^10\.9\.195\.192\/26 · node-/);
        const cursor = await page.locator(".cursor:visible").boundingBox();
        assert.ok(cursor.y > 0 && cursor.y < WIDE.height, "the cursor is in view");
        await page.keyboard.press("ArrowDown");
        assert.match(await live(), /^10\.9\.195\.192\/26 /);
        await page.keyboard.press("Home");
        await page.keyboard.press("ArrowDown");
        await page.keyboard.press("ArrowUp");
        await page.keyboard.press("PageDown");
        await page.keyboard.press("PageUp");
        assert.match(await live(), /^10\.0\.0\.0\/26 /);
        await page.keyboard.press("Enter");
        assert.equal(await focused(page), "panel-title");
        assert.equal(await text(page, "#panel-title"), "10.0.0.0/26");
        await page.locator("#panel tbody tr").first().waitFor();
        assert.match(await page.locator("#panel tbody tr").first().innerText(), /10.0.0.0[^]*default\/web-0/);
        await page.keyboard.press("Escape");
        assert.equal(await focused(page), "CANVAS");
        assert.equal(await page.locator("#panel").isVisible(), false);
        // The other map is the second stop on.
        await page.keyboard.press("Tab");
        await page.keyboard.press("Tab");
        assert.match(await live(), /^fd00:7::\/122 /);
    });
});

test("the pointer shows a block and its addresses", async () => {
    await on(worlds.large(), {}, async page => {
        await firstMap(page).hover({position: {x: 14, y: 4}});
        assert.match(await page.locator(".tip:visible").textContent(), /^10\.0\.0\.64\/26 · node-0390/);
        await firstMap(page).click({position: {x: 4, y: 14}});
        assert.match(await text(page, "#panel-about"), /Pool default-ipv4, node-\d+: \d+ of 64 used, \d+ free/);
        await page.mouse.move(1500, 900);
        assert.equal(await page.locator(".tip:visible").count(), 0);
    });
});

test("a finger opens a block", async () => {
    await on(worlds.large(), {viewport: NARROW, hasTouch: true, isMobile: true, deviceScaleFactor: 3}, async page => {
        await firstMap(page).scrollIntoViewIfNeeded();
        await firstMap(page).tap({position: {x: 14, y: 4}});
        await page.locator("#panel-title", {hasText: "10.0.0.64/26"}).waitFor();
        await assertFits(page, "with the panel");
    });
});

test("a map is a table, too", async () => {
    await on(worlds.large(), {}, async page => {
        const toggle = page.getByRole("button", {name: "As a table"}).first();
        await toggle.click();
        const row = page.locator(".pool").first().locator("tbody tr").first();
        assert.equal((await row.innerText()).replace(/\s+/g, " "), "10.0.0.0/26 node-0001 64 of 64 full, 4 reserved");
        await page.getByRole("button", {name: "Next"}).first().click();
        assert.equal((await row.innerText()).replace(/\s+/g, " ").split(" ")[0], "10.0.12.128/26");
        assert.equal(await text(page, "#live"), "51–100 of 10,000");
        await row.getByRole("button").click();
        assert.equal(await text(page, "#panel-title"), "10.0.12.128/26");
        await page.keyboard.press("Escape");
        assert.equal(await page.evaluate(() => document.activeElement.textContent), "10.0.12.128/26");
        await toggle.click();
        assert.equal(await firstMap(page).isVisible(), true);
    });
});

test("problems come first, each cure once, with a button that copies it", async () => {
    await on(worlds.troubled(), {permissions: ["clipboard-read", "clipboard-write"]}, async page => {
        assert.equal(await text(page, "#problem-count"), "38 problems");
        assert.equal(await page.locator(".problem").count(), 3);
        assert.match(await page.locator(".problem").first().innerText(), /error\s*10.0.3.17 is used by pod/);
        await page.locator(".problem").first().getByRole("button", {name: "Copy"}).click();
        await page.getByText("Copied", {exact: true}).waitFor();
        assert.equal(await page.evaluate(() => navigator.clipboard.readText()), "weirctl ipam check --repair");
        assert.equal(await page.locator(".problem").nth(1).locator("li").count(), 3);
        await page.getByRole("button", {name: "Show 33 more"}).click();
        assert.equal(await page.locator(".problem").nth(1).locator("li").count(), 36);
        assert.match(await page.title(), /^\(38\) Weir/);
    });
    await on(worlds.large(), {}, async page => {
        assert.match(await text(page, "#calm"), /^Nothing is wrong. The datastore was checked at /);
        assert.equal(await page.locator("#problem-count").isVisible(), false);
    });
});

test("ways to other nodes are counted first, and listed on demand", async () => {
    await on(worlds.troubled(), {}, async page => {
        await page.locator(".way").first().waitFor();
        assert.deepEqual(await page.locator(".way").allInnerTexts().then(all => all.map(it => it.replace(/\s+/g, " ").replace(/ show$/, ""))),
            ["1 node not reached default-ipv4", "745 nodes by IPIP over tunl0 default-ipv4", "253 nodes by direct route default-ipv4"]);
        const rows = page.locator("#reach-list tbody tr");
        assert.equal(await rows.count(), 0);
        await page.getByRole("button", {name: "745 nodes by IPIP"}).click();
        assert.equal(await rows.count(), 50);
        assert.match(await rows.first().innerText(), /node-0256\s+IPIP via 192.168.1.0 dev tunl0\s+the pool says CrossSubnet, and 192.168.1.0 is not in 192.168.0.0\/24/);
        await page.locator("#filter").fill("0999");
        assert.deepEqual(await rows.allInnerTexts().then(all => all.map(it => it.split(/\s/)[0])), ["node-0999"]);
        await page.locator("#filter").fill("nowhere");
        await page.getByText("No node matches “nowhere”.").waitFor();
        await page.locator("#filter").fill("");
        await page.locator("#from").selectOption("node-0300");
        await page.getByRole("button", {name: /255 nodes by direct/}).waitFor();
        assert.match(page.url(), /#from=node-0300$/);
    });
});

test("an answer is marked in the map, and its query can be shared", async () => {
    await on(worlds.large(), {}, async page => {
        await page.keyboard.press("/");
        await page.keyboard.type("10.0.9.3");
        await page.locator(".answer").waitFor();
        assert.match(await page.locator(".answer").innerText(), /10.0.9.3 address[^]*pod default\/web[^]*History[^]*pod default\/old on node-0042/);
        assert.match(page.url(), /#q=10.0.9.3$/);
        assert.equal(await page.locator(".mark").count(), 1);
        await page.getByRole("button", {name: "Show block 10.0.9.0/26"}).click();
        assert.equal(await text(page, "#panel-title"), "10.0.9.0/26");
        const other = await open(browser, page.url());
        await other.locator(".answer").waitFor();
        assert.equal(await other.locator("#query").inputValue(), "10.0.9.3");
        assert.equal(await text(other, "#panel-title"), "10.0.9.0/26");
        await other.context().close();
        await page.keyboard.press("Escape");
        await page.keyboard.press("Escape");
        assert.equal(await page.locator("#answers").isVisible(), false);
        assert.equal(await page.locator(".mark").count(), 0);
        assert.equal(new URL(page.url()).hash, "");
    });
});

test("all blocks of a node that was found are marked, and nothing found is said", async () => {
    await on(worlds.large(), {fragment: "#q=node-0777"}, async (page, {state}) => {
        await page.locator(".answer").waitFor();
        const index = state.nodes.findIndex(it => it.name === "node-0777");
        const blocks = state.pools.flatMap(pool => pool.blocks).filter(block => block[1] === index).length;
        assert.equal(await page.locator(".mark").count(), blocks);
        await page.getByRole("button", {name: "Whom it reaches"}).click();
        assert.equal(await focused(page), "from");
        assert.equal(await page.locator("#from").inputValue(), "node-0777");
        await page.locator("#query").fill("nothing of this name");
        await page.getByRole("heading", {name: "Nothing found for “nothing of this name”"}).waitFor();
        assert.equal(await page.locator(".mark").count(), 0);
    });
});

test("a late answer does not replace the answer to a later question", async () => {
    await on(worlds.large(), {}, async (page, fixture) => {
        fixture.delays.set("node-0001", 600);
        const late = page.waitForResponse(answer => answer.url().endsWith("q=node-0001"));
        const asked = page.waitForRequest(request => request.url().endsWith("q=node-0001"));
        await page.locator("#query").fill("node-0001");
        await asked;
        await page.locator("#query").fill("node-0002");
        await page.locator(".answer", {hasText: "node-0002"}).waitFor();
        await (await late).finished();
        await page.evaluate(() => new Promise(requestAnimationFrame));
        assert.equal(await page.locator(".answer h3").innerText(), "node-0002 node");
    });
});

test("a change does not keep what is being typed from being asked", async () => {
    await on(worlds.single(), {fragment: "#q=al"}, async (page, fixture) => {
        await page.locator(".answer").waitFor();
        await page.waitForTimeout(1600);  // what is derived is read again after a pause
        await page.locator("#query").fill("alon");
        fixture.change(assign(0));
        await page.waitForURL(/#q=alon$/);
    });
});

// Counts what is painted into canvases from now on.
const countPaints = page => page.evaluate(() => {
    const paint = CanvasRenderingContext2D.prototype.fillRect;
    window.paints = 0;
    CanvasRenderingContext2D.prototype.fillRect = function (...rect) {
        if (this.canvas.getAttribute("role")) window.paints += 1;
        return paint.apply(this, rect);
    };
});

// One more address in the block that has this place in the first pool.
const assign = place => state => {
    state.pools[0].blocks[place][2] += 1;
    state.pools[0].used = String(Number(state.pools[0].used) + 1);
};

test("a change shows without moving anything", async () => {
    await on(worlds.large(), {}, async (page, fixture) => {
        await firstMap(page).focus();
        for (const key of ["ArrowRight", "PageDown", "PageDown", "PageDown", "PageDown", "PageDown", "PageDown"]) await page.keyboard.press(key);
        const place = () => page.evaluate(() => [scrollY, document.activeElement.tagName, document.querySelector(".cursor").style.cssText]);
        const [tip, before] = [await text(page, ".pool:first-child .tip"), await place()];
        assert.ok(before[0] > 0, "the page is scrolled");
        await countPaints(page);
        const flash = page.locator(".flash").first().waitFor();
        fixture.change(assign(3));
        fixture.change(assign(1));
        await page.locator(".numbers", {hasText: "363,076"}).waitFor();
        await flash;
        assert.ok(await page.evaluate(() => window.paints) < 12, "only the changed blocks are drawn");
        assert.deepEqual(await place(), before);
        assert.equal(await text(page, ".pool:first-child .tip"), tip);
        await page.waitForFunction(() => document.querySelector(".flash") === null);
        // A new block before the cursor's: the cursor stays with its block.
        fixture.change(state => { state.pools[0].blocks.splice(0, 0, ["9.255.255.192/26", 1, 1, 64, 0, 0]); });
        await page.locator(".numbers", {hasText: "10,001 of"}).waitFor();
        assert.equal(await text(page, ".pool:first-child .tip"), tip);
        assert.equal(await focused(page), "CANVAS");
    });
});

test("the open block and the table follow changes", async () => {
    await on(worlds.single(), {}, async (page, fixture) => {
        await firstMap(page).focus();
        await page.keyboard.press("Enter");
        await page.locator("#panel tbody tr").nth(2).waitFor();
        await page.getByRole("button", {name: "As a table"}).click();
        fixture.change(assign(0));
        await page.locator("#panel tbody tr").nth(3).waitFor();
        await page.locator(".pool tbody", {hasText: "4 of 64"}).waitFor();
        fixture.change(state => { state.pools[0].blocks = []; });
        await page.getByText("This block is not there any more.").waitFor();
    });
});

test("without wish for motion nothing flashes", async () => {
    await on(worlds.single(), {reducedMotion: "reduce"}, async (page, fixture) => {
        await page.evaluate(() => {
            window.flashes = 0;
            new MutationObserver(changes => { for (const {addedNodes} of changes) for (const it of addedNodes) window.flashes += it.className === "flash" ? 1 : 0; })
                .observe(document.querySelector(".map"), {childList: true});
        });
        fixture.change(assign(0));
        await page.locator(".numbers", {hasText: "4"}).first().waitFor();
        await page.evaluate(() => new Promise(requestAnimationFrame));
        assert.equal(await page.evaluate(() => window.flashes), 0);
    });
});

test("a datastore that is away is told loudly, and what was known stays", async () => {
    await on(worlds.large(), {}, async (page, fixture) => {
        fixture.goOffline("etcd http://127.0.0.1:2379: connection refused");
        await page.getByRole("alert").waitFor();
        assert.match(await text(page, "#alert"), /^Datastore offline since .*connection refused/);
        assert.match(await page.title(), /^offline: /);
        assert.equal(await text(page, "#status"), "not live");
        assert.doesNotMatch(await text(page, "#calm"), /Nothing is wrong/);
        assert.equal(await firstMap(page).isVisible(), true);
        assert.equal(await page.evaluate(() => getComputedStyle(document.querySelector("main")).filter), "grayscale(1)");
        fixture.change(state => { state.offline = null; });
        await page.locator("#alert").waitFor({state: "hidden"});
        assert.match(await text(page, "#status"), /^live/);
    });
});

test("a dashboard that ended is told, and found again", async () => {
    const first = await serve(worlds.large());
    const page = await open(browser, first.url, {silent: false});
    await first.stop();
    await page.getByText(/^No answer from weirctl dashboard since/).waitFor();
    assert.equal(await page.locator("body.stale").count(), 1);
    assert.equal(await firstMap(page).isVisible(), true);
    // The new one has counted as far as the old one, but has something else to tell.
    const state = worlds.large();
    assign(0)(state);
    const second = await serve(state, first.port);
    await page.locator(".numbers", {hasText: "363,075"}).waitFor();
    await page.locator("#alert").waitFor({state: "hidden"});
    page.check();
    await page.context().close();
    await second.stop();
});

// Waits until something outside the page holds.
async function until(holds, what) {
    const end = performance.now() + 20000;
    while (!await holds()) {
        assert.ok(performance.now() < end, what);
        await new Promise(done => setTimeout(done, 20));
    }
}

// Collects what the red bar says from now on.
const watchAlert = page => page.evaluate(() => {
    window.alerts = [];
    const alert = document.getElementById("alert");
    const collect = () => { if (!alert.hidden) window.alerts.push(alert.textContent); };
    new MutationObserver(collect).observe(alert, {attributes: true, childList: true, characterData: true, subtree: true});
    collect();
});

// What a tab is told when another one covers it: Chromium without a window shows all of its pages.
const setHidden = (page, hidden) => page.evaluate(value => {
    Object.defineProperty(document, "hidden", {configurable: true, get: () => value});
    document.dispatchEvent(new Event("visibilitychange"));
}, hidden);

test("a stream that ends while the state is on its way is dialled again", async () => {
    await on(worlds.large(), {}, async (page, fixture) => {
        fixture.delays.set("/api/state", 700);
        const asked = page.waitForRequest("**/api/state");
        fixture.change(assign(0));
        await asked;
        fixture.endStreams();
        await until(() => fixture.dials.length > 1, "the stream is dialled again");
        fixture.delays.clear();
        fixture.change(assign(1));
        await page.locator(".numbers", {hasText: "363,076"}).waitFor();
    });
});

test("a page that is shown again just after a break dials once more", async () => {
    await on(worlds.large(), {}, async (page, fixture) => {
        fixture.endStreams();
        await until(() => fixture.streams.size === 0, "the stream ends");
        await setHidden(page, false);
        await until(() => fixture.streams.size === 1, "the page has a stream again");
        fixture.change(assign(0));
        await page.locator(".numbers", {hasText: "363,075"}).waitFor();
    });
});

test("the end of a stream is no alarm, and what changed meanwhile shows", async () => {
    await on(worlds.large(), {}, async (page, fixture) => {
        await watchAlert(page);
        fixture.endStreams();
        await until(() => fixture.streams.size === 0, "the stream ends");
        fixture.change(assign(0));
        await page.locator(".numbers", {hasText: "363,075"}).waitFor();
        await until(() => fixture.dials.length === 2 && fixture.streams.size === 1, "the stream is dialled again");
        fixture.change(assign(1));
        await page.locator(".numbers", {hasText: "363,076"}).waitFor();
        assert.deepEqual(await page.evaluate(() => window.alerts), []);
    });
});

test("a page without a stream says why, shows changes late, and dials ever more rarely", async () => {
    const refusal = "32 pages are open already; close one, then load this again";
    // Chromium itself reports a refusal as an error.
    await on(worlds.large(), {refusal, silent: false}, async (page, fixture) => {
        await watchAlert(page);
        await page.locator("#alert", {hasText: refusal}).waitFor();
        assert.equal(await page.locator("body.stale").count(), 0);
        assert.doesNotMatch(await page.title(), /^offline/);
        fixture.change(assign(0));
        await page.locator(".numbers", {hasText: "363,075"}).waitFor();
        await until(() => fixture.dials.length >= 4, "it dials on");
        // 2 s and 4 s lie between these; with a dial each second it would be 2 s in all.
        assert.ok(fixture.dials[3] - fixture.dials[1] > 4000, `dials at ${fixture.dials}`);
        assert.ok((await page.evaluate(() => window.alerts)).every(it => !it.includes("No answer")));
        fixture.refusal = null;
        await page.locator("#alert").waitFor({state: "hidden"});
        assert.match(await text(page, "#status"), /^live/);
    });
});

test("a hidden page has no stream, and shows what it missed when it is seen again", async () => {
    await on(worlds.large(), {}, async (page, fixture) => {
        await setHidden(page, true);
        await until(() => fixture.streams.size === 0, "a hidden page hangs up");
        fixture.change(assign(0));
        await setHidden(page, false);
        await page.locator(".numbers", {hasText: "363,075"}).waitFor();
        await until(() => fixture.streams.size === 1, "a visible page dials");
        fixture.change(assign(1));
        await page.locator(".numbers", {hasText: "363,076"}).waitFor();
    });
});

test("ten tabs of one browser do not block each other", async () => {
    await on(worlds.single(), {}, async (page, fixture) => {
        let shown = page;
        for (let number = 1; number < 10; number++) {
            await setHidden(shown, true);
            shown = await page.context().newPage();
            await shown.goto(fixture.url);
            await shown.locator("#status.live").waitFor();
        }
        await until(() => fixture.streams.size === 1, "only the visible one has a stream");
    });
});

test("colours follow the theme, and the map the width", async () => {
    await on(worlds.large(), {}, async page => {
        const pixel = () => firstMap(page).evaluate(canvas => [...canvas.getContext("2d").getImageData(4, 7, 1, 1).data].join());
        const [light, width] = [await pixel(), (await firstMap(page).boundingBox()).width];
        await page.emulateMedia({colorScheme: "dark"});
        // The page hears of it in a frame of its own choice.
        await page.waitForFunction(light =>
            [...document.querySelector("canvas[role]").getContext("2d").getImageData(4, 7, 1, 1).data].join() !== light, light);
        await page.setViewportSize(NARROW);
        await page.waitForFunction(() => document.querySelector("canvas[role]").offsetWidth <= 343);
        assert.ok(width > 1000);
        await assertFits(page, "after a change of the width");
    });
});

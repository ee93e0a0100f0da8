// The page of a real `weirctl dashboard` on a real etcd with 1,000 nodes and 10,000 blocks.
//
// The tests change one datastore, in the order in which they stand.

import assert from "node:assert/strict";
import {after, before, test} from "node:test";
import {NARROW, WIDE, assertAccessible, assertFits, firstMap, launch, open} from "./browser.js";
import {block, callIpam, fill, nodeName, owner, put, startDashboard, startEtcd, use, weirctl} from "./cluster.js";

const SHOTS = process.env.WEIR_SCREENSHOTS;
let browser, etcd, dashboard, page;

before(async () => {
    etcd = await startEtcd();
    await fill();
    // Damage: a block with neither handle nor affinity. It is there from the beginning, since a large
    // store is checked rarely.
    await put(block(20001, nodeName(6), 3).slice(0, 1));
    dashboard = await startDashboard();
    browser = await launch();
    page = await open(browser, dashboard.url, {silent: false});
});
after(async () => {
    await browser?.close();
    await dashboard?.stop();
    await etcd?.stop();
});

const shoot = (of, name) => SHOTS ? of.screenshot({path: `${SHOTS}/${name}.png`}) : null;
const numbers = (of = page) => of.locator(".pool", {hasText: "10.0.0.0/8"}).locator(".numbers");
const used = async () => Number((await numbers().locator("li").first().innerText()).split(" ")[0].replaceAll(",", ""));

test("the whole cluster is there", async () => {
    await page.locator("#totals", {hasText: "3 pools, 10,001 blocks"}).waitFor();
    let expected = 3;
    for (let number = 0; number < 10000; number++) expected += use(number);
    assert.equal(await used(), expected);
    assert.match(await numbers().innerText(), /10,001 of 262,144 blocks/);
    assert.match(await page.locator("#node-total").innerText(), /^1,000 nodes$/);
    assert.match(await page.locator(".pool", {hasText: "172.20.0.0/16"}).innerText(), /VXLAN Always[^]*disabled/);
    assert.match(await page.locator(".pool", {hasText: "fd00:7::/48"}).innerText(), /1.21e\+24 free/);
});

test("nothing hinders people with disabilities, and it fits", async () => {
    for (const [name, viewport] of [["wide", WIDE], ["narrow", NARROW]]) {
        for (const colorScheme of ["light", "dark"]) {
            const other = await open(browser, dashboard.url, {viewport, colorScheme});
            await other.locator(".way").first().waitFor();
            await assertFits(other, name);
            await assertAccessible(other, `${name}, ${colorScheme}`);
            await shoot(other, `real-${name}-${colorScheme}`);
            await firstMap(other).focus();
            for (const key of ["ArrowDown", "ArrowDown", "ArrowRight"]) await other.keyboard.press(key);
            await shoot(other, `real-${name}-${colorScheme}-cursor`);
            await other.keyboard.press("Enter");
            await other.locator("#panel tbody tr").first().waitFor();
            await assertFits(other, `${name} with the panel`);
            await assertAccessible(other, `${name}, ${colorScheme} with the panel`);
            await shoot(other, `real-${name}-${colorScheme}-panel`);
            other.check();
            await other.context().close();
        }
    }
});

test("the block under the cursor has its addresses", async () => {
    await firstMap(page).focus();
    assert.equal(await page.locator("#live").innerText(), `10.0.0.0/26 · ${owner(0)} · 64 of 64 used, full`);
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("Enter");
    const rows = page.locator("#panel tbody tr");
    await rows.first().waitFor();
    assert.match(await rows.first().innerText(), /10\.0\.0\.64[^]*production\/frontend-1-0[^]*eth0/);
    await page.keyboard.press("Escape");
});

test("nodes are reached in groups", async () => {
    await page.locator("#from").selectOption(nodeName(0));
    await page.getByRole("button", {name: /^199 nodes by direct route/}).waitFor();
    await page.getByRole("button", {name: /^800 nodes by IPIP over tunl0/}).click();
    assert.match(await page.locator("#reach-list tbody tr").first().innerText(), new RegExp(`${nodeName(200)}\\s+IPIP via 192.168.1.1 dev tunl0`));
    await shoot(page, "real-nodes");
    await page.getByRole("button", {name: /^800 nodes by IPIP over tunl0/}).click();
});

test("an address, a pod and a node are found", async () => {
    for (const [query, expected] of [["10.0.0.65", /production\/frontend-1-1/], ["frontend-3-7", /10\.0\.0\.199/], [nodeName(41), /192\.168\.0\.42/]]) {
        await page.locator("#query").fill(query);
        await page.waitForFunction(text => document.querySelector(".answer")?.innerText.includes(text), query);
        assert.match(await page.locator(".answer").first().innerText(), expected);
        assert.ok(await page.locator(".mark").count() > 0, `${query} is marked`);
    }
    await page.locator("#query").fill("10.0.0.65");
    await page.locator(".answer h3", {hasText: "10.0.0.65"}).waitFor();
    await shoot(page, "real-search");
    await page.keyboard.press("Escape");
});

test("an address that a plugin assigns shows at once, and so does its release", async () => {
    const before = await used(), node = owner(3);
    const result = await callIpam("ADD", "c0ffee", node);
    await numbers().filter({hasText: (before + 1).toLocaleString("en-US")}).waitFor();
    const [address] = result.ips[0].address.split("/");
    await page.locator("#query").fill("c0ffee");
    await page.locator(".answer", {hasText: address}).waitFor();
    await page.keyboard.press("Escape");
    await callIpam("DEL", "c0ffee", node);
    // Released addresses are used no more, whether they cool down or are free.
    await numbers().filter({hasText: before.toLocaleString("en-US")}).waitFor();
});

test("what weirctl changes shows, without losing the place", async () => {
    await firstMap(page).focus();
    for (const key of ["PageDown", "PageDown", "PageDown", "PageDown", "PageDown", "PageDown"]) await page.keyboard.press(key);
    const place = () => page.evaluate(() => [document.activeElement.tagName, document.querySelector(".tip").textContent]);
    const height = async () => (await page.locator(".cursor:visible").boundingBox()).y;
    const [before, top] = [await place(), await height()];
    await weirctl("patch", "ippool", "default-ipv6", "-p", "spec: {disabled: true}");
    await page.locator(".pool", {hasText: "fd00:7::/48"}).getByText("disabled: gives no new addresses").waitFor();
    await put(block(20000, nodeName(5), 7));
    await numbers().filter({hasText: "10,002 of"}).waitFor();
    assert.deepEqual(await place(), before);
    // The browser scrolls by whole pixels.
    assert.ok(Math.abs(await height() - top) < 2, "what is looked at stays where it is");
});

test("damage shows with its cure", async () => {
    const cure = page.locator(".problem", {hasText: "weirctl ipam check --repair"});
    await cure.waitFor({timeout: 90000});
    assert.match(await cure.innerText(), /10\.19\.136\.64/);
    await shoot(page, "real-problems");
    await assertAccessible(page, "problems");
});

test("a datastore that is away is told, and what was known stays", async () => {
    await etcd.kill();
    await page.locator("#alert", {hasText: "Datastore offline since"}).waitFor();
    assert.match(await numbers().innerText(), /10,002 of 262,144 blocks/);
    await shoot(page, "real-offline");
    await assertAccessible(page, "offline");
    await etcd.restart();
    await page.locator("#alert").waitFor({state: "hidden"});
    const before = await used();
    await put(block(20002, nodeName(7), 9));
    await numbers().filter({hasText: (before + 9).toLocaleString("en-US")}).waitFor();
});

test("a dashboard that ended is told", async () => {
    await dashboard.stop();
    await page.locator("#alert", {hasText: "No answer from weirctl dashboard since"}).waitFor();
    assert.equal(await firstMap(page).isVisible(), true);
    page.check();
});

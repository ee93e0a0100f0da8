// Measures the page with 1,000 nodes and 10,000 blocks, and prints Markdown for docs/performance.md.
//
// Usage: node measure.js [--check]; with --check it fails when a target is missed.

import {launch, open, firstMap} from "./browser.js";
import {block, callIpam, fill, owner, put, startDashboard, startEtcd} from "./cluster.js";

const ROUNDS = 10;
const median = values => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const results = [];

function report(what, values, target) {
    results.push({what, median: median(values), worst: Math.max(...values), target});
}

// First paint and the drawn map, each time in a new profile.
async function loads(browser, url) {
    const paints = [], maps = [];
    for (let round = 0; round < ROUNDS; round++) {
        const page = await open(browser, url);
        const [paint, map] = await page.evaluate(() => ["first-contentful-paint", "map"].map(name => performance.getEntriesByName(name)[0]?.startTime));
        paints.push(paint);
        maps.push(map);
        await page.context().close();
    }
    report("first contentful paint", paints, 200);
    report("until the map is drawn", maps);
}

// From before a change to when the page shows it.
async function changes(page) {
    const watch = () => page.evaluate(() => {
        const numbers = document.querySelector(".pool .numbers");
        window.shown = new Promise(done => {
            const observer = new MutationObserver(() => { observer.disconnect(); requestAnimationFrame(() => done(Date.now())); });
            observer.observe(numbers, {subtree: true, childList: true, characterData: true});
        });
    });
    const puts = [], adds = [];
    for (let round = 0; round < ROUNDS; round++) {
        await watch();
        const start = Date.now();
        await put(block(30000 + round, owner(round), 5 + round));
        puts.push(await page.evaluate(() => window.shown) - start);
        await page.waitForTimeout(500);
    }
    for (let round = 0; round < ROUNDS; round++) {
        await watch();
        const start = Date.now();
        await callIpam("ADD", `measured${round}`, owner(3));
        adds.push(await page.evaluate(() => window.shown) - start);
        await page.waitForTimeout(500);
    }
    report("a block that is put into etcd, until it shows", puts, 1000);
    report("ADD of `weir-ipam`, from its start until it shows", adds, 1000);
}

// Frames and long tasks while scrolling, moving the pointer and the cursor.
async function interaction(page) {
    await page.evaluate(() => {
        window.tasks = [];
        window.frames = [];
        new PerformanceObserver(list => window.tasks.push(...list.getEntries().map(it => it.duration))).observe({type: "longtask"});
        let last = performance.now();
        requestAnimationFrame(function frame(now) { window.frames.push(now - last); last = now; requestAnimationFrame(frame); });
    });
    const box = await firstMap(page).boundingBox();
    for (let step = 0; step < 60; step++) await page.mouse.move(box.x + 10 + step * 15, box.y + 10 + step * 5);
    await firstMap(page).focus();
    for (let step = 0; step < 60; step++) await page.keyboard.press(step % 3 ? "ArrowRight" : "ArrowDown");
    for (let step = 0; step < 30; step++) await page.mouse.wheel(0, step < 15 ? 120 : -120);
    await page.locator(".way").first().click();
    await page.locator("#filter").pressSequentially("node-09");
    const [tasks, frames] = await page.evaluate(() => [window.tasks, window.frames]);
    report("a frame while moving over the map and scrolling", frames);
    report("longest task of them (0: none over 50 ms)", [Math.max(0, ...tasks)]);
}

const etcd = await startEtcd();
await fill();
const dashboard = await startDashboard();
const browser = await launch();
try {
    await loads(browser, dashboard.url);
    const page = await open(browser, dashboard.url);
    await page.locator(".way").first().waitFor();
    await interaction(page);
    await changes(page);
    const size = await page.evaluate(() => performance.getEntriesByType("resource").find(it => it.name.endsWith("/api/state")).decodedBodySize);
    console.log("| what | median ms | worst ms | target ms |\n|---|--:|--:|--:|");
    for (const it of results) console.log(`| ${it.what} | ${it.median.toFixed(0)} | ${it.worst.toFixed(0)} | ${it.target ?? ""} |`);
    console.log(`\nThe state is ${(size / 1024).toFixed(0)} KiB.`);
} finally {
    await browser.close();
    await dashboard.stop();
    await etcd.stop();
}
const missed = results.filter(it => it.target !== undefined && it.median > it.target);
if (process.argv.includes("--check") && missed.length > 0) {
    console.error(`missed: ${missed.map(it => it.what).join("; ")}`);
    process.exitCode = 1;
}

// Chromium for the tests: pages that must behave, and what is asked of all of them.

import assert from "node:assert/strict";
import {readFile} from "node:fs/promises";
import {chromium} from "playwright-core";

const AXE = await readFile(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8");

export const WIDE = {width: 1600, height: 1000};
export const NARROW = {width: 375, height: 812};

// Chromium's own sandbox needs a user that is not root.
export function launch() {
    const args = process.getuid() === 0 ? ["--no-sandbox"] : [];
    return chromium.launch({executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args});
}

// Opens the page and waits until it shows the state. `check()` asserts what holds for every page: all requests
// went to the dashboard, and the console has no error, which a violation of the policy would be.
export async function open(browser, url, {viewport = WIDE, colorScheme = "light", silent = true, ...options} = {}) {
    const context = await browser.newContext({viewport, colorScheme, ...options});
    const page = await context.newPage();
    const origin = new URL(url).origin, strange = [], said = [];
    context.on("request", request => {
        if (!request.url().startsWith(`${origin}/`) && !request.url().startsWith("data:")) strange.push(request.url());
    });
    page.on("console", message => { if (message.type() === "error") said.push(message.text()); });
    page.on("pageerror", error => said.push(error.message));
    await page.goto(url);
    await page.waitForFunction(() => performance.getEntriesByName("map").length > 0);
    page.check = () => {
        assert.deepEqual(strange, [], "requests to elsewhere");
        // Chromium itself reports requests that get no answer.
        if (silent) assert.deepEqual(said, [], "errors in the console");
    };
    return page;
}

// The first map of the page.
export function firstMap(page) {
    return page.locator("canvas[role=application]").first();
}

// Requires that axe finds nothing serious.
export async function assertAccessible(page, what) {
    await page.evaluate(AXE);
    const {violations} = await page.evaluate(() => window.axe.run());
    const serious = violations.filter(it => ["serious", "critical"].includes(it.impact));
    assert.deepEqual(serious.map(it => `${it.id}: ${it.nodes[0].html} ${it.nodes[0].failureSummary}`), [], what);
}

// Requires that nothing is wider than the window.
export async function assertFits(page, what) {
    const [content, window] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
    assert.ok(content <= window, `${what}: ${content} pixels in a window of ${window}`);
}

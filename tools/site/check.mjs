// Looks at the built site in a real browser: node check.mjs FOLDER. Every page, wide and on a phone, in light and dark colours:
//   - links within the site lead to pages and headings that exist; nothing is asked of another host; nothing fails to load
//   - nothing is wider than a phone's screen, but for what scrolls by itself, such as code and tables
//   - no finding of axe that is serious, contrast among them
//   - the search finds
// Prints every finding, and exits with 1 if there is one. The browser is SLUICE_CHROMIUM, or /usr/bin/chromium.
import {createReadStream, existsSync, readdirSync, readFileSync, statSync} from "node:fs";
import {createServer} from "node:http";
import {createRequire} from "node:module";
import {extname, join, relative, resolve, sep} from "node:path";
import {chromium} from "playwright-core";

const site = resolve(process.argv[2]);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const types = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".json": "application/json", ".svg": "image/svg+xml", ".png": "image/png"};

// findings of the whole site, each with the page it is on.
const findings = new Set();
const find = (page, text) => findings.add(`${page}: ${text}`);

// serve gives a server of the folder on loopback, under the path that the site has in the world.
function serve(base) {
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url, "http://x").pathname);
    let file = path.startsWith(base) ? join(site, path.slice(base.length)) : "";
    if (file && existsSync(file) && statSync(file).isDirectory()) file = join(file, "index.html");
    if (!file.startsWith(site + sep) || !existsSync(file)) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, {"content-type": types[extname(file)] ?? "application/octet-stream"});
    createReadStream(file).pipe(response);
  });
  return new Promise((done) => server.listen(0, "127.0.0.1", () => done(server)));
}

// pages are the addresses of all pages below the site's own.
function pages() {
  return readdirSync(site, {recursive: true}).filter((f) => f.endsWith("index.html")).map((f) => relative(site, join(site, f)).slice(0, -"index.html".length)).sort();
}

// lookAtAll opens all pages in one of the ways in which people see them, and gives what it needs to follow their links.
async function lookAtAll(browser, origin, paths, {width, scheme}) {
  const context = await browser.newContext({viewport: {width, height: 900}, colorScheme: scheme, reducedMotion: "reduce"});
  const page = await context.newPage();
  const links = new Map();
  let where = "";
  page.on("request", (r) => new URL(r.url()).origin === origin.origin || /^(data|blob):/.test(r.url()) || find(where, `asks another host: ${r.url()}`));
  page.on("response", (r) => r.ok() || r.status() === 304 || find(where, `${r.status()} for ${r.url()}`));
  page.on("pageerror", (e) => find(where, `script fails: ${e.message}`));
  for (const path of paths) {
    where = `/${path} (${width} wide, ${scheme})`;
    const {hrefs, ids} = await look(page, new URL(path, origin), where);
    links.set(new URL(path, origin).pathname, {hrefs, ids: new Set(ids), where});
  }
  await context.close();
  return links;
}

// look opens one page, and gives its links and its headings.
async function look(page, address, where) {
  await page.goto(address.href, {waitUntil: "load"});
  const beyond = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  if (beyond > 0) find(where, `is ${beyond} pixels wider than the screen`);
  await page.evaluate(axe);
  const result = await page.evaluate(() => globalThis.axe.run(document, {runOnly: ["wcag2a", "wcag2aa"]}));
  for (const v of result.violations.filter((v) => v.impact === "serious" || v.impact === "critical")) {
    for (const node of v.nodes.slice(0, 3)) find(where, `${v.id}: ${node.target.join(" ")}: ${(node.any[0] ?? node.all[0] ?? node.none[0])?.message}`);
  }
  return page.evaluate(() => ({hrefs: Array.from(document.querySelectorAll("a[href]"), (a) => a.href), ids: Array.from(document.querySelectorAll("[id]"), (e) => e.id)}));
}

// follow checks the links of all pages against what there is.
function follow(origin, links) {
  for (const {hrefs, where} of links.values()) {
    for (const href of hrefs.map((h) => new URL(h)).filter((h) => h.origin === origin.origin)) {
      const target = links.get(href.pathname);
      const id = decodeURIComponent(href.hash.slice(1));
      if (!target) {
        if (!existsSync(join(site, href.pathname.slice(origin.pathname.length)))) find(where, `links to ${href.pathname}, which is not there`);
      } else if (id && !target.ids.has(id)) find(where, `links to ${href.pathname}${href.hash}, and there is no such heading`);
    }
  }
}

// search types what a reader would.
async function search(browser, origin) {
  const page = await browser.newPage();
  await page.goto(origin.href);
  await page.locator("[data-md-component=search-query]").first().fill("replica identity");
  const hit = page.locator(".md-search-result__item a").first();
  await hit.waitFor({timeout: 30_000}).catch(() => find("/", "the search for “replica identity” finds nothing"));
  await page.close();
}

const base = "/sluice/";
const server = await serve(base);
const origin = new URL(`http://127.0.0.1:${server.address().port}${base}`);
const browser = await chromium.launch({
  executablePath: process.env.SLUICE_CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
try {
  const all = pages();
  follow(origin, await lookAtAll(browser, origin, all, {width: 1280, scheme: "light"}));
  await lookAtAll(browser, origin, all, {width: 390, scheme: "dark"});
  await search(browser, origin);
  for (const finding of findings) console.log(finding);
  console.log(`${all.length} pages, ${findings.size} findings`);
} finally {
  await browser.close();
  server.close();
}
process.exitCode = findings.size > 0 ? 1 : 0;

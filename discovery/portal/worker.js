// Keeps a copy of this page in the browser: it opens while the registry is away, and shows the last list with its age.
// The registry is always asked first, and its list is never kept here.

const SHELF = "portal";
const page = new URL("../", self.location.href);
const parts = new URL("./", self.location.href);

self.addEventListener("install", (event) => event.waitUntil(fill()));
self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  url.hash = "";
  const ours = url.href === page.href || url.href.startsWith(parts.href);
  if (ours && event.request.method === "GET") event.respondWith(freshest(event, url.href));
});

async function fill() {
  const shelf = await caches.open(SHELF);
  const html = await (await fetch(page)).text();
  const named = [...html.matchAll(/(?:href|src)="(portal\/[^"]+)"/g)].map(([, path]) => new URL(path, page).href);
  await shelf.addAll([page.href, ...named]);
}

async function freshest(event, url) {
  const answer = await fetch(event.request).catch(() => null);
  if (answer?.ok) {
    const copy = answer.clone();
    event.waitUntil(caches.open(SHELF).then((shelf) => shelf.put(url, copy)));
  }
  if (answer && answer.status < 500) return answer;
  return (await caches.match(url)) ?? answer ?? Response.error();
}

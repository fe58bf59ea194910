// What the console adds where scripts run: live parts, local times, a preview while typing. Everything else works without.
"use strict";

// ── Signing in by the address that `pillarbox console` prints ──

// The token stands behind `#`: browsers send it nowhere. It leaves the address and the history before it is used.
function enter() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return;
  history.replaceState(null, "", location.pathname + location.search);
  const form = document.getElementById("login");
  if (form) {
    form.elements.token.value = token;
    form.submit();
  }
}
enter();
// An address that differs by its token alone does not load the page again.
addEventListener("hashchange", enter);

// ── Times as the reader's clock shows them ──

const whole = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });
const today = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const short = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });

function localize(root) {
  for (const time of root.querySelectorAll("time[data-local]")) {
    const at = new Date(time.dateTime);
    if (!Number.isNaN(at.getTime())) {
      time.title = time.textContent;
      const near = at.toDateString() === new Date().toDateString() ? today : whole;
      time.textContent = (time.dataset.local === "time" ? short : near).format(at);
    }
  }
}

// ── Live parts ──

// Makes `old` like `fresh` and touches only what differs: focus, selection and open details stay.
function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !(name === "open" || name === "data-kept")) old.removeAttribute(name);
  }
  for (const { name, value } of [...fresh.attributes]) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  morphChildren(old, fresh);
}

function morphChildren(old, fresh) {
  const known = new Map();
  for (const child of old.children) if (child.id) known.set(child.id, child);
  let place = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const same = child.id ? known.get(child.id) : undefined;
    if (same) {
      known.delete(child.id);
      if (same === place) place = place.nextSibling;
      else old.insertBefore(same, place);
      morph(same, child);
    } else if (!child.id && place && !(place.id && known.has(place.id)) && place.nodeName === child.nodeName) {
      const next = place.nextSibling;
      morph(place, child);
      place = next;
    } else {
      if (child.id && child.dataset.fresh !== undefined) child.classList.add("fresh");
      old.insertBefore(child, place);
    }
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

function fill(part, html) {
  const fresh = new DOMParser().parseFromString(html, "text/html").body;
  localize(fresh);
  morphChildren(part, fresh);
}

const announced = document.getElementById("announce");

function follow(part) {
  const sign = document.getElementById("livestate");
  let source, again;
  const say = (text, off) => {
    sign.hidden = false;
    sign.classList.toggle("off", off);
    sign.textContent = text;
  };
  const stop = () => {
    clearTimeout(again);
    if (source) source.close();
    source = undefined;
  };
  const start = () => {
    stop();
    source = new EventSource(part.dataset.live);
    source.addEventListener("open", () => say("Live", false));
    source.addEventListener("part", (event) => fill(part, event.data));
    source.addEventListener("say", (event) => { announced.textContent = event.data; });
    source.addEventListener("error", async () => {
      say("Reconnecting…", true);
      // A refusal ends it for good, a lost connection does not.
      const refused = source;
      if (!refused || refused.readyState !== EventSource.CLOSED) return;
      const page = await fetch(location.href, { method: "HEAD", redirect: "manual" }).catch(() => undefined);
      if (refused !== source) return; // it was stopped, or begun anew, meanwhile
      if (page && page.type === "opaqueredirect") say("Signed out: reload the page", true);
      else again = setTimeout(start, 5000);
    });
  };
  // A browser has few connections to one host: pages that nobody sees leave theirs to others.
  const turn = () => {
    if (document.hidden || part.dataset.paused !== undefined) stop();
    else if (!source) start();
  };
  document.addEventListener("visibilitychange", turn);
  addEventListener("pagehide", stop);
  part.addEventListener("turn", turn);
  turn();
  return say;
}

for (const part of document.querySelectorAll("[data-live]")) {
  const say = follow(part);
  const button = document.querySelector("[data-hold]");
  if (button) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const hold = part.dataset.paused === undefined;
      if (hold) part.dataset.paused = "";
      else delete part.dataset.paused;
      button.setAttribute("aria-pressed", String(hold));
      if (hold) say("Held still", true);
      part.dispatchEvent(new Event("turn"));
    });
  }
}

// ── The form of an integration ──

const editor = document.querySelector("form[data-preview]");
if (editor) {
  const tried = document.getElementById("tried");
  let asked = 0;
  // Asks what is filled in becomes, or has it tested; an answer that a later one has overtaken is not shown.
  const ask = async (what) => {
    const number = ++asked;
    const body = new URLSearchParams(new FormData(editor));
    body.set("do", what);
    body.set("part", "yes");
    tried.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(editor.dataset.preview, { method: "POST", body });
      const text = await answer.text();
      if (number !== asked) return;
      if (answer.ok) fill(tried, text);
      else tried.textContent = answer.status === 401 ? "You are signed out: reload the page." : text;
    } catch {
      if (number === asked) tried.textContent = "The daemon cannot be reached.";
    } finally {
      if (number === asked) tried.removeAttribute("aria-busy");
    }
  };
  let soon;
  const later = () => {
    clearTimeout(soon);
    soon = setTimeout(() => ask("preview"), 250);
  };
  const reveal = (root) => root.querySelectorAll("[data-remove]").forEach((button) => { button.hidden = false; });
  editor.addEventListener("input", (event) => {
    // A key has nothing to do with what events become.
    if (event.target.name !== "api_key") later();
  });
  editor.addEventListener("click", async (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const { add, remove } = button.dataset;
    if (add) {
      event.preventDefault();
      const rows = (button.closest(".mapping") || editor).querySelector(`[data-rows="${add}"]`);
      rows.append(document.getElementById(`row-${add}`).content.cloneNode(true));
      reveal(rows);
      rows.lastElementChild.querySelector("input").focus();
    } else if (remove) {
      button.closest(remove).remove();
      later();
    } else if (button.dataset.try) {
      event.preventDefault();
      clearTimeout(soon);
      button.disabled = true;
      await ask(button.dataset.try);
      button.disabled = false;
    }
  });
  for (const select of editor.querySelectorAll("[data-fill]")) {
    select.hidden = false;
    select.addEventListener("change", () => {
      document.getElementById(select.dataset.fill).value = select.value;
      later();
    });
  }
  reveal(editor);
}

// ── Every entry of a page at once ──

for (const box of document.querySelectorAll("input[data-all]")) {
  box.hidden = false;
  box.addEventListener("change", () => {
    for (const other of box.form.elements) if (other.name === box.dataset.all) other.checked = box.checked;
  });
}

// ── What a bin of the chart holds ──

let tip;
document.addEventListener("pointermove", (event) => {
  const bar = event.target instanceof Element ? event.target.closest(".hits rect") : null;
  if (!bar) {
    if (tip) tip.remove();
    tip = undefined;
    return;
  }
  if (!tip) {
    tip = document.createElement("div");
    tip.className = "tip";
    tip.setAttribute("aria-hidden", "true");
    document.body.append(tip);
  }
  const { time, accepted, delivered, queued } = bar.dataset;
  tip.textContent = `until ${short.format(new Date(time))}\naccepted ${accepted}\ndelivered ${delivered}\nqueued ${queued}`;
  // Through the object model: a style that a script sets is none of the page's own.
  tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${event.clientY + 14}px`;
});

localize(document);

// The status page: asks GET /v1/stats every few seconds and shows it. All
// text that came over the network is set as text, never as markup.
"use strict";

const ages = ["<5", "10", "20", "40", "80", "160", "320", "640", "1280", "1280+"];
const byId = (id) => document.getElementById(id);
let token = sessionStorage.getItem("token") || "";

function element(name, text) {
  const e = document.createElement(name);
  e.textContent = text;
  return e;
}

function row(cells, kind) {
  const tr = document.createElement("tr");
  for (const text of cells) tr.append(element(kind, text));
  return tr;
}

function span(seconds) {
  if (seconds < 0) return "now";
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "m"]]) {
    if (seconds >= size) return Math.round(seconds / size) + " " + unit;
  }
  return Math.round(seconds) + " s";
}

const since = (at, now) => (at ? span((new Date(now) - new Date(at)) / 1000) : "");
const until = (at, now) => (at ? span((new Date(at) - new Date(now)) / 1000) : "");

function state(text, bad) {
  byId("state").textContent = text;
  byId("state").classList.toggle("bad", bad);
}

function show(stats) {
  state(stats.error || (stats.mode === "live" ? "takes mail" : "mode " + stats.mode), Boolean(stats.error));
  const figures = [
    ["messages", stats.messages], ["recipients", stats.recipients], ["waiting", stats.waiting], ["due", stats.due],
    ["being sent", stats.active], ["held", stats.held], ["oldest", since(stats.oldest, stats.at) || "-"],
  ];
  byId("figures").replaceChildren(...figures.map(([name, value]) => {
    const group = document.createElement("div");
    group.append(element("dt", name), element("dd", value));
    return group;
  }));
  byId("grid").tHead.replaceChildren(row(["destination", "all", ...ages, "next", "connections", "waits for"], "th"));
  byId("grid").tBodies[0].replaceChildren(...stats.domains.map((d) => row([
    d.domain, d.waiting + d.due + d.active + d.held, ...d.ages.map((n) => n || ""), until(d.next, stats.at),
    d.lane ? d.lane.connections + " of " + d.lane.window : "", d.lane ? d.lane.waits || d.lane.last_error || "" : "",
  ], "td")));
  byId("suspensions").replaceChildren(...stats.suspensions.map((s) => element("li",
    [s.domain, s.site, s.sender, s.tag].filter(Boolean).join(" ") + (s.until ? " for " + until(s.until, stats.at) : "") + (s.reason ? ": " + s.reason : ""))));
}

async function ask(path) {
  const response = await fetch(path, { headers: { Authorization: "Bearer " + token } });
  if (!response.ok) throw Object.assign(new Error((await response.json()).error), { status: response.status });
  return response.json();
}

async function refresh() {
  try {
    show(await ask("/v1/stats"));
    byId("main").hidden = false;
    byId("login").hidden = true;
  } catch (e) {
    if (e.status === 401) {
      byId("main").hidden = true;
      byId("login").hidden = false;
      state(token ? "this token is not the one" : "the queue is shown to those who have the token", Boolean(token));
      return;
    }
    state(e.message, true);
  }
  setTimeout(refresh, 5000);
}

byId("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value.trim();
  sessionStorage.setItem("token", token);
  refresh();
});
refresh();

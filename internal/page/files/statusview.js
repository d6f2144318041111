// The state of the daemon on the screen: entries, callers, the rate, the log.

import { bytes, progress, sentence } from "./daemon.js";
import { html } from "./parts.js";
import { state } from "./state.js";

const n = (x) => (x ?? 0).toLocaleString("en");
const rate = (x) => (x > 0 ? x.toFixed(x < 100 ? 1 : 0) : "0");
const share = (part, whole) => (whole > 0 ? `${Math.round((100 * part) / whole)} %` : "–");

// Banner says what the daemon is doing, unless it is ready.
export function Banner() {
  const { daemon, lost } = state;
  if (lost) return html`<p class="banner bad">inferd does not answer. The page tries again by itself.</p>`;
  if (daemon.status === "ready" || !daemon.status) return null;
  const part = progress(daemon);
  const bad = daemon.phase === "gave_up" || daemon.status === "draining";
  return html`<div class=${bad ? "banner bad" : "banner"}>
    <p>${sentence(daemon)}</p>
    ${part !== undefined && html`<progress max="1" value=${part} aria-label="Progress of loading"></progress>`}
  </div>`;
}

function Table({ title, heads, rows, empty }) {
  return html`<section>
    <h2>${title}</h2>
    ${rows.length
      ? html`<div class="wide" tabindex="0" role="group" aria-label=${title}>
          <table>
            <thead><tr>${heads.map((text, i) => html`<th scope="col" class=${i ? "to-right" : undefined}>${text}</th>`)}</tr></thead>
            <tbody>${rows.map((row) => html`<tr>${row.map((cell, i) => (i ? html`<td class="to-right">${cell}</td>` : html`<th scope="row">${cell}</th>`))}</tr>`)}</tbody>
          </table>
        </div>`
      : html`<p class="faint">${empty}</p>`}
  </section>`;
}

function entry(b) {
  const e = b.engine;
  const healthy = b.silent ? "silent" : b.breaker === "open" ? "resting" : b.state.replace("_", " ");
  return [
    html`<span class=${healthy === "ready" ? "good" : "bad"}>${b.name}</span>`,
    healthy, `${b.running} of ${b.slots}`, n(b.waiting), n(b.parked), rate(b.tokens_per_s),
    e?.kv_size_tokens ? share(e.kv_used_tokens, e.kv_size_tokens) : "–",
    e ? share(e.cached_tokens, e.cached_tokens + e.prefill_tokens) : "–",
    e?.steps ? `${e.step_ms.toFixed(1)} ms` : "–", e ? n(e.stalls) : "–", n(b.restarts),
  ];
}

function caller(c) {
  const program = c.exe ? c.exe.split(/[\\/]/).pop() : c.program || "–";
  return [program, c.user || "–", n(c.running), n(c.waiting), c.place || "–", n(c.parked), rate(c.tokens_per_s), n(c.input_tokens), share(c.cached_tokens, c.input_tokens), n(c.output_tokens), n(c.refused)];
}

// Curve draws the tokens per second of the last two minutes.
function Curve({ rates }) {
  if (rates.length < 2) return null;
  const top = Math.max(1, ...rates);
  const points = rates.map((r, i) => `${((300 * i) / 119).toFixed(1)},${(46 - (44 * r) / top).toFixed(1)}`).join(" ");
  return html`<figure class="curve">
    <svg viewBox="0 0 300 48" preserveAspectRatio="none" role="img" aria-label=${`Tokens per second: now ${rate(rates.at(-1))}, at most ${rate(top)}`}><polyline points=${points} /></svg>
    <figcaption>Tokens per second, the last two minutes; the top is ${rate(top)}</figcaption>
  </figure>`;
}

function uptime(ms) {
  const minutes = Math.floor(ms / 60000);
  if (minutes < 1) return `${Math.floor(ms / 1000)} s`;
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

function Log({ records }) {
  const line = ({ t, level, msg, component, ...rest }) =>
    [String(t).slice(11, 19), level, msg, ...Object.entries(rest).map(([k, v]) => `${k}=${typeof v === "object" ? JSON.stringify(v) : v}`)].join("  ");
  return html`<section><h2>Log</h2>
    <pre class="log" tabindex="0" role="group" aria-label="The newest records of the activity log">${records.map((r) => line(r) + "\n")}</pre>
  </section>`;
}

export function StatusView() {
  const { stats, rates, log, daemon } = state;
  return html`<main class="status">
    <h1>Status</h1>
    <p>${sentence(daemon)} ${stats && html`<span class="faint">Version ${stats.version}, up ${uptime(stats.uptime_ms)}.</span>`}</p>
    ${stats && html`
      <dl class="totals">
        ${[["running", n(stats.running)], ["waiting", n(stats.waiting)], ["parked", n(stats.parked)], ["unread", n(stats.stalled)], ["tokens/s", rate(rates.at(-1))], ["connections", n(stats.connections)], ["memory", bytes(stats.heap_bytes)]]
          .map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}
      </dl>
      <${Curve} rates=${rates} />
      <${Table} title="Entries" empty="No model yet." rows=${stats.backends.map(entry)}
        heads=${["Entry", "State", "Slots", "Waiting", "Parked", "Tokens/s", "KV", "Cached", "Step", "Stalls", "Restarts"]} />
      <${Table} title=${stats.owner ? "Callers" : "Your programs"} empty="No requests yet." rows=${stats.callers.map(caller)}
        heads=${["Program", "User", "Running", "Waiting", "Place", "Parked", "Tokens/s", "In", "Cached", "Out", "Refused"]} />
      ${stats.owner && log.length > 0 && html`<${Log} records=${log} />`}
      ${!stats.owner && html`<p class="faint">The programs of other users, and the log, are shown to the daemon's own user only.</p>`}`}
  </main>`;
}

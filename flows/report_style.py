"""How a report looks: on screens of any width, light and dark, and on paper."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; --paper: #fff; --raised: #f6f7f6; --ink: #1c211e; --soft: #5c665f; --line: #d9dedb;
  --one: #2f6f57; --two: #c8803a; --good: #22704a; --bad: #ad2f2a; --mark: #e3efe9; }
@media (prefers-color-scheme: dark) { :root { --paper: #141715; --raised: #1d211e; --ink: #e7ebe8; --soft: #9ba69f;
  --line: #353b37; --one: #6cbd9b; --two: #e0a363; --good: #74c79b; --bad: #ee8a83; --mark: #23352d; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: clamp(1.5rem, 5vw, 2.2rem); line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h1 .version { color: var(--soft); font-weight: 400; }
h2 { font-size: 1.3rem; margin: 3rem 0 1rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 0; }
h4 { margin: 0 0 .4rem; font-size: .8rem; color: var(--soft); font-weight: 600; }
p { margin: 0 0 .8rem; max-width: 70ch; }
code { font: .9em ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
a { color: var(--one); }
.kicker, .note, figcaption, footer { color: var(--soft); font-size: .875rem; }
.kicker { margin: 0; }
.lead { font-size: 1.1rem; }
dl { margin: 0; }
dd { margin: 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: .75rem; margin: 1.25rem 0; }
.tiles div { background: var(--raised); border-radius: 8px; padding: .7rem .9rem; }
.tiles dt, .facts dt { color: var(--soft); font-size: .8rem; }
.tiles dd { font-size: 1.05rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.tiles .critical { color: var(--bad); } .tiles .warning { color: var(--two); }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.25rem; margin-bottom: 1.5rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; list-style: none; padding: 0; margin: 1rem 0 0;
  font-size: .9rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); gap: 1.75rem 2.5rem; }
figure { margin: 0 0 1.25rem; max-width: 560px; break-inside: avoid; }
.plot-title { font-weight: 600; margin-bottom: .5rem; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: var(--ink); }
svg .small { font-size: 11.5px; fill: var(--soft); }
svg .value { font-variant-numeric: tabular-nums; fill: var(--soft); }
svg .one { fill: var(--one); } svg .two { fill: var(--two); }
svg .grid { stroke: var(--line); } svg .axis { stroke: var(--soft); }
svg .node { fill: var(--raised); stroke: var(--line); }
svg .here { fill: var(--mark); stroke: var(--one); stroke-width: 2; }
svg .edge { fill: none; stroke: var(--soft); stroke-opacity: .55; }
.scroll { overflow-x: auto; margin: 0 0 1.75rem; }
.scroll:focus-visible { outline: 2px solid var(--one); }
table { border-collapse: collapse; font-size: .9rem; min-width: min(100%, 32rem); }
caption { text-align: left; font-weight: 600; padding-bottom: .5rem; }
th, td { min-width: 5em; text-align: left; vertical-align: top; padding: .35rem 1.1rem .35rem 0;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; }
td.text { min-width: 17rem; overflow-wrap: anywhere; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.badge { font-weight: 600; }
.passed { color: var(--good); } .failed { color: var(--bad); } .skipped { color: var(--soft); }
.sample { border: 1px solid var(--line); border-radius: 8px; padding: 1rem; margin: 0 0 1.25rem; }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)); gap: 1rem; }
.chat { background: var(--raised); border-radius: 6px; padding: .75rem .9rem; margin-bottom: .75rem; }
.chosen { border-left: 3px solid var(--one); } .rejected { border-left: 3px solid var(--two); }
.role { font-size: .75rem; color: var(--soft); margin: 0; }
.said { white-space: pre-wrap; overflow-wrap: anywhere; margin-bottom: .6rem; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 1rem; }
@media (max-width: 480px) { .facts { grid-template-columns: 1fr; } .facts dd { margin-bottom: .5rem; } }
@media print {
  :root { color-scheme: light; --paper: #fff; --raised: #f4f4f4; --ink: #000; --soft: #444; --line: #bbb;
    --one: #2f6f57; --two: #c8803a; --good: #22704a; --bad: #ad2f2a; --mark: #e3efe9; }
  body { max-width: none; padding: 0; font-size: 11pt; }
  nav { display: none; } .scroll { overflow: visible; } tr, .sample { break-inside: avoid; } h2 { break-after: avoid; }
}
"""

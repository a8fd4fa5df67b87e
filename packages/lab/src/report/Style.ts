/** The page's style: one column, system fonts, a light and a dark palette with the same names, and paper. */
export const STYLE = `
:root{color-scheme:light dark;--paper:#fbfbf9;--panel:#f2f2ee;--ink:#1b1d21;--soft:#565c66;--rule:#dcdcd6;--link:#1f5a8f;
--guest:#2f7355;--world:#737b86;--kvm:#2a64a0;--user:#b2521f;--threads:#6f4aa0;--on-bar:#fff}
@media (prefers-color-scheme:dark){:root{--paper:#14161a;--panel:#1d2025;--ink:#e8e7e3;--soft:#a9afb8;--rule:#34383f;
--link:#8cbcf0;--guest:#79c6a2;--world:#9aa2ad;--kvm:#78aee8;--user:#ee9e68;--threads:#bda0ec;--on-bar:#0d0f12}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,"Segoe UI","Helvetica Neue",Arial,sans-serif}
body>*{max-width:848px;margin-inline:auto;padding-inline:16px}
a{color:var(--link)}
a:focus-visible,summary:focus-visible,.scroll:focus-visible{outline:2px solid var(--link);outline-offset:2px}
.skip{position:absolute;left:-9999px}.skip:focus{left:8px;top:8px;background:var(--paper);padding:4px 8px}
header{padding-block:40px 8px}
h1{font-size:1.9rem;line-height:1.2;letter-spacing:-.015em;margin:0 0 .4em;font-weight:650}
h2{font-size:1.35rem;line-height:1.25;margin:2.6em 0 .5em;font-weight:650;letter-spacing:-.01em;overflow-wrap:anywhere}
h3{font-size:1.05rem;margin:2.2em 0 .4em;font-weight:650}
p{margin:.5em 0 1em}
.basis{border-left:3px solid var(--ink);padding:.1em 0 .1em 14px;margin:1.2em 0}
.basis p{margin:.3em 0}
nav ul,.legend{list-style:none;padding:0;margin:.4em 0;display:flex;flex-wrap:wrap;gap:.25em 1.2em;font-size:.9rem}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.15em 1.2em;margin:1em 0;font-size:.9rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
code{font:0.92em ui-monospace,"DejaVu Sans Mono",Menlo,monospace;overflow-wrap:anywhere}
.legend,.key{color:var(--soft);font-size:.85rem}.legend svg{vertical-align:-1px}
figure{margin:1.8em 0 2.4em}
figcaption{font-weight:600;margin-bottom:.3em;overflow-wrap:anywhere}
.plot{margin-top:.6em}.plot svg{display:block;max-width:100%;height:auto;color:var(--soft)}
.narrow{display:none}
@media (max-width:700px){.wide{display:none}.narrow{display:block}h1{font-size:1.5rem}header{padding-top:24px}
dl{grid-template-columns:minmax(0,1fr)}dd{margin-bottom:.4em}}
.scroll{overflow-x:auto;margin:1em 0 .2em}
table{border-collapse:collapse;font-size:.82rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);padding-bottom:.5em}
th,td{text-align:left;padding:.34em .6em .34em 0;border-bottom:1px solid var(--rule);vertical-align:top;white-space:nowrap}
thead th{border-bottom:1px solid var(--ink);color:var(--soft);font-weight:500;vertical-align:bottom}
tbody th{font-weight:600}
.n{text-align:right;padding:.34em 0 .34em .6em}
.save{font-size:.8rem;margin:.3em 0 1em}
summary{cursor:pointer;color:var(--link);font-size:.85rem}
.textures{position:absolute}
footer{border-top:1px solid var(--rule);margin-top:4em;padding-block:1.2em 3em;color:var(--soft);font-size:.85rem}
@media print{:root{--paper:#fff;--ink:#000}body{font-size:10.5pt}nav,.save,.skip,details{display:none}
.scroll{overflow:visible}table{font-size:7.5pt}figure,table{break-inside:avoid}h2,h3,figcaption{break-after:avoid}
*{print-color-adjust:exact}}
`

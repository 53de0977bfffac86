"use strict";

const PAGE_OF_IMAGES = 24;
const SVG = "http://www.w3.org/2000/svg";

function svgElement(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function imageItem(sample) {
  const item = document.createElement("li");
  const unit = Math.max(sample.width, sample.height);
  const svg = svgElement("svg", {
    viewBox: `0 0 ${sample.width} ${sample.height}`,
    role: "img",
    "aria-label": `${sample.name}, ${sample.id}: mouse trace of ${sample.trace.length} points, ${sample.click.length} clicks`,
  });
  svg.append(svgElement("image", { href: sample.src, width: sample.width, height: sample.height }));
  const points = sample.trace.map((point) => point.join(",")).join(" ");
  for (const kind of ["halo", "trace"]) svg.append(svgElement("polyline", { class: `${kind} of-trace`, points }));
  for (const [x, y] of sample.click) svg.append(svgElement("circle", { class: "click of-click", cx: x, cy: y, r: unit / 32 }));
  const name = document.createElement("b");
  name.textContent = sample.name;
  item.append(svg, name, sample.id);
  return item;
}

function startBrowser() {
  if (!document.getElementById("browser-data")) return; // a study without ImageNet
  const samples = JSON.parse(document.getElementById("browser-data").textContent);
  const [choice, list, count, more] = ["class", "images", "count", "more"].map((name) => document.getElementById(`browser-${name}`));
  for (const wnid of new Set(samples.map((sample) => sample.wnid))) {
    const option = document.createElement("option");
    option.value = wnid;
    option.textContent = `${samples.find((sample) => sample.wnid === wnid).name} (${wnid})`;
    choice.append(option);
  }
  let limit = PAGE_OF_IMAGES;
  function show() {
    const chosen = samples.filter((sample) => !choice.value || sample.wnid === choice.value);
    list.replaceChildren(...chosen.slice(0, limit).map(imageItem));
    count.textContent = `${Math.min(limit, chosen.length)} of ${chosen.length} images shown`;
    more.hidden = limit >= chosen.length;
    mark();
  }
  function mark() {
    for (const kind of ["trace", "click"]) {
      const on = document.getElementById(`browser-${kind}`).checked;
      for (const element of list.querySelectorAll(`.of-${kind}`)) element.classList.toggle("off", !on);
    }
  }
  choice.addEventListener("change", () => { limit = PAGE_OF_IMAGES; show(); });
  more.addEventListener("click", () => {
    const before = limit;
    limit += PAGE_OF_IMAGES;
    show();
    if (more.hidden) { // keep the focus, which was on the button
      const next = list.children[before];
      next.tabIndex = -1;
      next.focus();
    }
  });
  for (const kind of ["trace", "click"]) document.getElementById(`browser-${kind}`).addEventListener("change", mark);
  document.getElementById("browser").hidden = false;
  show();
}

function startCurves() {
  for (const button of document.querySelectorAll("#curve-legend button")) {
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(on));
      for (const curve of document.querySelectorAll(".curve")) {
        if (curve.dataset.supervision === button.dataset.supervision) curve.classList.toggle("off", !on);
      }
    });
  }
}

function startRuns() {
  const body = document.querySelector("#runs-table tbody");
  const rows = [...body.rows];
  const filter = document.getElementById("runs-filter");
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = `${row.dataset.run} ${row.cells[2].textContent}`.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += row.hidden ? 0 : 1;
    }
    document.getElementById("runs-count").textContent = `${shown} of ${rows.length} runs`;
  });
  const heads = [...document.querySelectorAll("#runs-table thead th")];
  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const compare = new Intl.Collator("en", { numeric: true }).compare;
    const order = (a, b) => (Number(key(a)) - Number(key(b))) || compare(key(a), key(b));
    body.append(...[...rows].sort((a, b) => (up ? order(a, b) : order(b, a))));
  }));
}

// On paper, details cannot be opened: open all before printing, except the cards of the runs.
function startPrinting() {
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("section:not(#runs) details:not([open])")];
    for (const details of opened) details.open = true;
  });
  addEventListener("afterprint", () => { for (const details of opened) details.open = false; });
}

// The picture at its own size, in a window that scrolls; Escape closes it too.
function startEnlarging() {
  const dialog = document.getElementById("enlarged");
  const place = document.getElementById("enlarged-figure");
  for (const button of document.querySelectorAll(".enlarge")) {
    button.addEventListener("click", () => {
      place.replaceChildren(button.querySelector("img").cloneNode());
      dialog.showModal();
    });
  }
  document.getElementById("enlarged-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => place.replaceChildren());
}

startBrowser();
startEnlarging();
startCurves();
startRuns();
startPrinting();

// The administrator's page: progress, quality, a viewer that replays stored pages, exports.

import {make, request, tell} from "./page.js";
import {showReplay} from "./replay.js";

const KEY = "luab-admin";
if (location.hash.length > 1) {
  sessionStorage.setItem(KEY, location.hash.slice(1));
  history.replaceState(null, "", location.pathname); // the token is not left in the address bar
}
const main = document.querySelector("main");
const headers = () => ({Authorization: `Bearer ${sessionStorage.getItem(KEY) ?? ""}`});
const ask = (what) => request("GET", `/api/admin/${what}`, undefined, headers());
const percent = (share) => (share === null || share === undefined ? "–" : `${Math.round(100 * share)} %`);

function askToken() {
  const field = make("input", {id: "token", type: "password", autocomplete: "off", required: true});
  const form = make("form", {}, make("label", {htmlFor: "token"}, "Token that the server printed when it started"), field,
    make("button", {type: "submit"}, "Open"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, field.value.trim());
    load();
  });
  main.replaceChildren(form);
}

async function load() {
  try {
    const [progress, quality] = [await ask("progress"), await ask("quality")];
    tell("");
    document.title = document.getElementById("title").textContent = `${progress.title}: administration`;
    const viewer = make("section", {id: "replay"});
    main.replaceChildren(
      make("p", {}, make("button", {type: "button", onclick: load}, "Refresh")),
      ...Object.entries(progress.interfaces).flatMap(([name, numbers]) => sections(name, numbers, viewer)),
      viewer, ...qualityTable(quality), ...finder(), ...downloads(progress), ...events(progress.events));
  } catch (error) {
    tell(error.message);
    if (error.status === 401) askToken();
  }
}

function sections(name, n, viewer) {
  const cards = [
    [n.pages, "pages stored"], [n.pages_last_hour, "pages in the last hour"], [n.pages_per_hour.toFixed(1), "pages per hour"],
    [`${n.assignments_done} / ${n.assignments}`, "assignments done"], [n.workers, "people"],
    [`${n.image_views} / ${n.image_views_wanted}`, "views of images"],
  ];
  const rows = n.list.map((one) => [one.worker, one.version, `${one.stored} / ${one.pages}`, one.code ?? "",
    make("span", {className: "pages"}, ...one.list.map((page) => make("button", {type: "button", onclick: () => replay(page.id, viewer)}, `${page.number}`)))]);
  return [make("h2", {}, name.charAt(0).toUpperCase() + name.slice(1)), make("div", {className: "cards"},
    ...cards.map(([value, text]) => make("div", {className: "card"}, make("b", {}, String(value)), make("span", {}, text)))),
  make("div", {className: "scroll", tabIndex: 0}, table(["Worker", "Version", "Pages", "Code", "Replay page"], rows))];
}

async function replay(id, viewer) {
  try {
    showReplay(await ask(`page?id=${encodeURIComponent(id)}`), viewer);
  } catch (error) {
    tell(error.message);
  }
}

function table(names, rows) {
  return make("table", {}, make("thead", {}, make("tr", {}, ...names.map((name) => make("th", {}, name)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, cell instanceof Node ? cell : String(cell)))))));
}

function qualityTable(report) {
  const rows = report.map((one) => [one.worker, one.interface, one.pages, `${percent(one.gold_recall)} of ${one.gold}`, one.ms_per_image,
    one.look_at.join("; ") || "nothing unusual"]);
  return [make("h2", {}, "Quality"), make("p", {className: "hint"}, "Suggestions for whom to look at. Nobody is excluded unless you exclude them from an export."),
    make("div", {className: "scroll", tabIndex: 0}, table(["Worker", "Interface", "Pages", "Known objects found", "ms per image", "Worth a look"], rows))];
}

function finder() {
  const field = make("input", {id: "person", autocomplete: "off"});
  const found = make("p", {});
  const form = make("form", {}, make("label", {htmlFor: "person"}, "Id of a participant on the platform, or a typed name"), field,
    make("button", {type: "submit"}, "Find"), found);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const ids = await ask(`worker?name=${encodeURIComponent(field.value.trim())}`);
    found.textContent = `Worker ${ids.platform} if it is an id of the platform, ${ids.name} if it is a typed name.`;
  });
  return [make("h2", {}, "Find a participant"), form];
}

function downloads(progress) {
  const names = [...("browsing" in progress.interfaces ? ["imagenet_ab"] : []),
    ...("tagging" in progress.interfaces ? ["coco_ab", "coco_ab_images"] : []), "points_csv", "points_parquet", "quality"];
  const without = make("input", {id: "without", autocomplete: "off"});
  const get = async (name) => {
    const url = `/api/admin/export/${name}?without=${encodeURIComponent(without.value.replaceAll(" ", ""))}`;
    const response = await fetch(url, {headers: headers()});
    if (!response.ok) return tell((await response.json()).error);
    const link = make("a", {href: URL.createObjectURL(await response.blob()), download: response.headers.get("content-disposition").match(/filename="([^"]+)"/)[1]});
    link.click();
    URL.revokeObjectURL(link.href);
  };
  return [make("h2", {}, "Exports"), make("label", {htmlFor: "without"}, "Workers to leave out, separated by commas"), without,
    make("p", {className: "downloads"}, ...names.map((name) => make("button", {type: "button", onclick: () => get(name)}, name)))];
}

function events(counts) {
  return [make("h2", {}, "Events"), make("p", {}, Object.entries(counts).map(([kind, count]) => `${kind.replaceAll("_", " ")}: ${count}`).join(", "))];
}

load();

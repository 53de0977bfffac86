// What a participant goes through: login, consent, pages, completion code.

import {drop, dropAll, keep, kept} from "./pending.js";
import {HttpError, make, request, show, tell} from "./page.js";
import {showBrowsing} from "./browsing.js";
import {showTagging} from "./tagging.js";

const INTERFACE = location.pathname.split("/")[1];
const API = `/api/${INTERFACE}`;
let unsaved = false;

window.addEventListener("beforeunload", (event) => {
  if (unsaved) event.preventDefault();
});

async function begin() {
  const parameters = Object.fromEntries(new URLSearchParams(location.search));
  // The ids leave the address bar, so that they are in no history, screenshot or bookmark.
  history.replaceState(null, "", location.pathname);
  let state = null;
  if (Object.keys(parameters).length) {
    try {
      state = await request("POST", `${API}/login`, {parameters});
    } catch (error) {
      if (error.status !== 401) throw error;
    }
  }
  enter(state ?? await request("GET", `${API}/state`));
}

async function enter(state) {
  document.title = document.getElementById("title").textContent = state.title;
  document.getElementById("withdraw").hidden = state.stage === "login" || state.stage === "consent";
  document.getElementById("logout").hidden = state.stage === "login";
  unsaved = state.stage === "page";
  if (state.stage === "page") return showPage(state.page);
  const stages = {login: showLogin, consent: showConsent, done: showDone, exhausted: showExhausted};
  stages[state.stage](state);
}

async function showPage(page) {
  const url = `${API}/assignments/${page.assignment}/pages/${page.number}`;
  const before = await kept(url); // finished earlier, but the server did not answer
  if (before) return send(url, before, () => showPage(page));
  const shown = INTERFACE === "browsing" ? showBrowsing : showTagging;
  const id = crypto.randomUUID?.() ?? randomId(); // the former exists only with https or on this machine
  shown(page, (content) => send(url, {...content, page: {id, pageno: page.number, ...content.page}}, null, page));
}

function randomId() {
  const digits = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

async function send(url, body, again) {
  const busy = document.getElementById("busy");
  busy.hidden = false;
  await keep(url, body);
  try {
    const state = await request("PUT", url, body);
    await drop(url);
    tell("");
    await enter(state);
  } catch (error) {
    if (!(error instanceof HttpError)) throw error;
    const refused = error.status >= 400 && error.status < 500 && error.status !== 408 && error.status !== 429;
    if (refused) await drop(url);
    tell(error.message);
    if (error.status === 409) await enter(await request("GET", `${API}/state`));
    else if (again && refused) await again();
    else if (again) show(make("button", {type: "button", onclick: () => send(url, body, again)}, "Send the page again"));
  } finally {
    busy.hidden = true;
  }
}

function showLogin(state) {
  if (!state.localNames) {
    show(make("p", {}, "The link does not say who you are. Please open it from the platform that sent you here."));
    return;
  }
  const name = make("input", {id: "name", required: true, maxLength: 100, autocomplete: "off"});
  const form = make("form", {className: "narrow"},
    make("label", {htmlFor: "name"}, "Your name, or the code that you were given"), name,
    make("p", {className: "hint"}, "Use the same one to continue later, also in another browser."),
    make("button", {type: "submit"}, "Continue"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(() => request("POST", `${API}/login`, {name: name.value}));
  });
  show(make("h2", {}, "Welcome"), form);
}

function showConsent(state) {
  const recorded = INTERFACE === "browsing"
    ? "which images you click, where and when, and how the pointer moves over the images"
    : "which icons you place, where and when, and how the pointer moves over the image";
  const box = make("input", {type: "checkbox", id: "agree"});
  const button = make("button", {type: "button", disabled: true}, "Begin");
  box.addEventListener("change", () => { button.disabled = !box.checked; });
  button.addEventListener("click", () => attempt(() => request("POST", `${API}/consent`, {version: state.version})));
  show(make("h2", {}, "Before you begin"), make("div", {className: "narrow"},
    ...state.text.map((paragraph) => make("p", {}, paragraph)),
    make("p", {}, `Recorded from here on: ${recorded}, with times, and whether you use a mouse, touch or keys. ` +
      "Your id is stored only as a code that cannot be reversed without the key of this study; your network address is not stored."),
    make("p", {}, "You can stop at any time. \"Withdraw\" at the bottom of the page deletes everything that was recorded of you."),
    make("p", {}, box, " ", make("label", {htmlFor: "agree"}, "I have read this and agree.")), button));
}

function showDone(state) {
  const parts = [make("h2", {}, "Thank you!"), make("p", {}, "All your pages are stored. Your completion code:"),
    make("p", {className: "code", id: "code"}, state.code)];
  if (state.url) parts.push(make("p", {}, make("a", {href: state.url, rel: "noreferrer"}, "Return with this code")));
  if (state.another) {
    parts.push(make("button", {type: "button", onclick: () => attempt(() => request("POST", `${API}/another`, {}))}, "Do another one"));
  }
  show(...parts);
}

function showExhausted() {
  show(make("h2", {}, "Thank you!"), make("p", {}, "There are no images left for you at the moment."));
}

async function attempt(act) {
  tell("");
  try {
    await enter(await act());
  } catch (error) {
    if (!(error instanceof HttpError)) throw error;
    tell(error.message);
  }
}

document.getElementById("withdraw").addEventListener("click", () => {
  const dialog = document.getElementById("sure");
  dialog.returnValue = "";
  dialog.showModal();
});
document.getElementById("sure").addEventListener("close", async (event) => {
  if (event.target.returnValue !== "withdraw") return;
  try {
    const {pages} = await request("POST", `${API}/withdraw`, {});
    await dropAll();
    unsaved = false;
    document.getElementById("withdraw").hidden = true;
    show(make("h2", {}, "You have withdrawn"), make("p", {}, `${pages} pages and everything else about you were deleted.`));
  } catch (error) {
    tell(error.message);
  }
});
document.getElementById("logout").addEventListener("click", async () => {
  await request("POST", `${API}/logout`, {});
  unsaved = false;
  enter(await request("GET", `${API}/state`));
});

begin().catch((error) => tell(error.message));

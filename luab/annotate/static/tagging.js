// The tagging page: one image; drag the icon of each object onto it. One icon per class.

import {make, show, tell} from "./page.js";
import {PageClock, TagRecord, boardSize, ratios} from "./records.js";

const ROOM = 786; // px beside the list of placed icons
const CLICK_PX = 4; // a shorter drag is a click
const [STEP_PX, FINE_PX] = [20, 2];
const [LENS_RADIUS, LENS_SCALE] = [80, 1.5];
let leavePage = () => {};

export function showTagging(page, submit) {
  leavePage();
  const board = new Board(page);
  leavePage = board.listen();
  const button = make("button", {type: "button", className: "submit"}, "Submit");
  button.addEventListener("click", () => {
    if (!board.data.sawLastPane) {
      tell(`Please look at all ${page.panes.length} sets of icons before you submit.`);
      return;
    }
    const {clock, data} = board;
    const clockSteps = page.faithful ? {} : {clock: clock.advanced()};
    // DEVIATES: timeSpend ends when the button is pressed; the published tool also counts its questions to the server.
    const annotation = data.record(clock.elapsed(), page.faithful);
    submit({page: {startedAt: clock.startedAt, annotation, ...clockSteps}, endedAt: clock.now(), isDone: page.number === page.pages});
  });
  const usual = "Drag the icons from the panel below onto the objects of the same type in the image. If there are several " +
    `objects of a type, drag its icon onto any one of them. There are ${page.panes.length} sets of icons: use the buttons or ` +
    "the left and right arrow keys to see all of them. Click an icon on the image to remove it. With the keyboard: Enter " +
    "takes an icon, the arrow keys move it, Enter places it, Delete removes it. " +
    `There are ${page.pages} images in all.`;
  const texts = page.instructions.length ? page.instructions : [usual];
  show(make("div", {className: "question"}, ...texts.map((text) => make("p", {}, text))),
  board.element, make("div", {}, button, make("p", {className: "counter"}, `${page.number} / ${page.pages}`)));
  board.fill();
}

/** A tile with the picture or the first letters of a class. */
function tile(icon, hue) {
  const face = icon.url ? make("img", {src: icon.url, alt: "", draggable: false}) : make("span", {}, icon.name.slice(0, 3));
  const button = make("button", {type: "button", className: "icon", "aria-label": icon.name}, face);
  button.style.background = icon.url ? "#fff" : `hsl(${hue} 62% 82%)`;
  button.dataset.name = icon.name;
  return button;
}

class Board {
  constructor(page) {
    this.page = page;
    this.clock = new PageClock(page.faithful);
    this.data = new TagRecord(page.images[0].id, page.panes.map((pane) => pane.name));
    this.icons = new Map(page.panes.flatMap((pane) => pane.icons).map((icon, k) => [icon.name, {...icon, hue: k * 137 % 360}]));
    this.picture = make("img", {className: "picture", alt: `Image ${page.number} of ${page.pages}`, draggable: false});
    this.layer = make("div", {className: "layer"}, this.picture);
    this.list = make("ul", {className: "placed", "aria-label": "The image contains"});
    this.heading = make("h2", {});
    this.palette = make("div", {className: "palette", role: "group"});
    this.bar = make("progress", {max: page.panes.length});
    this.count = make("span", {className: "count"});
    this.said = make("p", {className: "unseen", role: "status"});
    this.label = make("div", {className: "label", hidden: true});
    this.cross = make("div", {className: "cross", hidden: true});
    this.lens = make("div", {className: "lens", hidden: true}, make("i", {}));
    this.back = make("button", {type: "button", className: "turn", "aria-label": "Previous icons"}, "‹");
    this.next = make("button", {type: "button", className: "turn", "aria-label": "Next icons"}, "›");
    this.layer.append(this.cross);
    this.element = make("div", {className: "tagging"},
      make("div", {className: "row"}, make("div", {className: "middle"}, this.layer),
        make("div", {className: "side"}, make("h3", {}, "Image contains"), this.list)),
      make("div", {className: "panel"}, this.heading, make("div", {className: "turns"}, this.back, this.palette, this.next),
        make("div", {className: "progress"}, this.bar, this.count)),
      this.said, this.label, this.lens);
    this.carried = null;
  }

  /** Listens to the page; returns a function that stops it. */
  listen() {
    const {picture, data, clock} = this;
    picture.addEventListener("load", () => this.loaded());
    picture.addEventListener("error", () => {
      data.loadFailed = true;
      this.layer.classList.add("failed");
    });
    picture.addEventListener("pointermove", (event) => {
      if (event.pointerType === "touch" || !data.sizes.imageHeight) return;
      const {x, y} = ratios(event, picture);
      data.move(x, y, clock.elapsed());
    });
    this.back.addEventListener("click", (event) => this.turn(-1, event.detail === 0));
    this.next.addEventListener("click", (event) => this.turn(1, event.detail === 0));
    const keys = (event) => this.key(event);
    document.addEventListener("keydown", keys);
    picture.src = this.page.images[0].url;
    return () => document.removeEventListener("keydown", keys);
  }

  loaded() {
    const {naturalWidth, naturalHeight} = this.picture;
    const {width, height} = boardSize(naturalWidth, naturalHeight, ROOM, this.page.faithful);
    this.picture.style.width = `${width}px`;
    this.picture.style.height = `${height}px`;
    this.data.sizes = {imageWidth: width, imageHeight: height, originalImageWidth: naturalWidth, originalImageHeight: naturalHeight};
  }

  turn(by, usingKeyboard) {
    if (this.data.open(this.data.pane + by, usingKeyboard, this.clock.elapsed())) {
      tell("");
      this.fill();
    }
  }

  /** Draws the pane that is open, and the icons that are placed. */
  fill() {
    const {data, page} = this;
    const pane = page.panes[data.pane];
    const had = document.activeElement?.dataset?.name;
    this.heading.textContent = pane.name.replace(/([a-z])([A-Z])/g, "$1 & $2");
    this.palette.setAttribute("aria-label", this.heading.textContent);
    this.palette.replaceChildren(...pane.icons.map((icon) => this.choice(icon.name)));
    this.back.disabled = data.pane === 0;
    this.next.disabled = data.pane === page.panes.length - 1;
    this.bar.value = data.pane + 1;
    this.count.textContent = `${data.pane + 1} / ${page.panes.length}`;
    for (const old of this.layer.querySelectorAll(".icon")) old.remove();
    for (const [name, point] of data.places) this.layer.append(this.placed(name, point));
    this.list.replaceChildren(...[...data.places.keys()].map((name) => make("li", {}, tile(this.icons.get(name), this.icons.get(name).hue))));
    for (const one of this.list.querySelectorAll("button")) Object.assign(one, {tabIndex: -1, title: one.dataset.name});
    if (had) [...this.element.querySelectorAll(".palette .icon, .layer .icon")].find((one) => one.dataset.name === had)?.focus();
  }

  choice(name) {
    const icon = this.icons.get(name);
    const button = tile(icon, icon.hue);
    button.setAttribute("aria-pressed", String(this.data.places.has(name)));
    this.draggable(button, name, true);
    return make("div", {className: "choice"}, button, make("span", {}, name));
  }

  placed(name, point) {
    const icon = this.icons.get(name);
    const button = tile(icon, icon.hue);
    button.classList.add("on");
    button.setAttribute("aria-label", `${name}, on the image`);
    button.style.left = `${point.x * 100}%`;
    button.style.top = `${point.y * 100}%`;
    this.draggable(button, name, false);
    return button;
  }

  // Pointer capture: while an icon is dragged, the picture gets no movement, so the trace has none either.
  draggable(button, name, fromPalette) {
    button.addEventListener("pointerenter", (event) => this.name(event, name));
    button.addEventListener("pointerleave", () => { this.label.hidden = true; });
    button.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      button.focus({preventScroll: true});
      const fixed = fromPalette && this.data.places.has(name); // a placed class is undraggable in the palette
      const drag = {button, name, fixed, x: event.clientX, y: event.clientY, ghost: null, input: event.pointerType || "mouse"};
      button.setPointerCapture(event.pointerId);
      const move = (moved) => this.drag(drag, moved);
      const end = (ended) => {
        for (const [kind, act] of [["pointermove", move], ["pointerup", end], ["pointercancel", end]]) button.removeEventListener(kind, act);
        this.drop(drag, ended);
      };
      button.addEventListener("pointermove", move);
      button.addEventListener("pointerup", end);
      button.addEventListener("pointercancel", end);
    });
    button.addEventListener("keydown", (event) => {
      if (event.key === "Delete" || event.key === "Backspace") this.take(name, "keyboard");
      else if (event.key !== "Enter" && event.key !== " ") return;
      else if (this.carried) return;
      else if (fromPalette && this.data.places.has(name)) this.take(name, "keyboard");
      else this.carry(name);
      event.preventDefault();
      event.stopPropagation();
    });
  }

  name(event, name) {
    this.label.textContent = name;
    this.label.hidden = event.pointerType === "touch";
    this.label.style.left = `${event.clientX + 14}px`;
    this.label.style.top = `${event.clientY + 14}px`;
  }

  drag(drag, event) {
    if (drag.fixed) return;
    if (!drag.ghost) {
      if (Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < CLICK_PX) return;
      drag.ghost = tile(this.icons.get(drag.name), this.icons.get(drag.name).hue);
      drag.ghost.classList.add("ghost");
      drag.ghost.style.opacity = this.page.version === "improved" ? 0.4 : 1;
      this.element.append(drag.ghost);
      this.label.hidden = true;
    }
    drag.ghost.style.left = `${event.clientX}px`;
    drag.ghost.style.top = `${event.clientY}px`;
    const over = this.isOver(event);
    // DEVIATES: the path of a drag is recorded in a key of its own; the published tool loses it.
    if (over && !this.page.faithful) {
      const {x, y} = ratios(event, this.picture);
      this.data.drag(x, y, this.clock.elapsed());
    }
    this.magnify(over && this.page.version === "improved", event);
  }

  drop(drag, event) {
    drag.ghost?.remove();
    this.magnify(false, event);
    if (event.type === "pointercancel") return;
    if (!drag.ghost) {
      this.take(drag.name, drag.input); // a click on a placed icon, or on its icon in the palette
    } else if (this.isOver(event) && !this.hitsOther(drag, event)) {
      this.put(drag.name, ratios(event, this.picture), drag.input);
    } else {
      this.take(drag.name, drag.input);
    }
  }

  isOver(event) {
    const box = this.picture.getBoundingClientRect();
    const {clientX: x, clientY: y} = event;
    return this.data.sizes.imageHeight > 0 && x >= box.left && x <= box.right && y >= box.top && y <= box.bottom;
  }

  // DEVIATES: an icon can be dropped onto another one; in the published tool, this removes it.
  hitsOther(drag, event) {
    if (!this.page.faithful) return false;
    return document.elementsFromPoint(event.clientX, event.clientY).some((one) => one.closest(".layer .icon:not([data-name='" + CSS.escape(drag.name) + "'])"));
  }

  put(name, point, input) {
    this.data.place(name, point, this.clock.elapsed(), input);
    this.said.textContent = `${name} placed at ${Math.round(point.x * 100)} percent from the left, ${Math.round(point.y * 100)} percent from the top`;
    this.fill();
  }

  take(name, input) {
    if (!this.data.places.has(name)) return;
    this.data.remove(name, this.clock.elapsed(), input);
    this.said.textContent = `${name} removed`;
    this.label.hidden = true;
    this.fill();
  }

  magnify(shown, event) {
    this.lens.hidden = !shown;
    if (!shown) return;
    const box = this.picture.getBoundingClientRect();
    const style = this.lens.style;
    style.left = `${event.clientX - LENS_RADIUS}px`;
    style.top = `${event.clientY - 2 * LENS_RADIUS - 10}px`;
    style.backgroundImage = `url("${this.page.images[0].url}")`;
    style.backgroundSize = `${box.width * LENS_SCALE}px ${box.height * LENS_SCALE}px`;
    style.backgroundPosition = `${LENS_RADIUS - (event.clientX - box.left) * LENS_SCALE}px ${LENS_RADIUS - (event.clientY - box.top) * LENS_SCALE}px`;
  }

  carry(name) {
    if (!this.data.sizes.imageHeight) return;
    const from = this.data.places.get(name) ?? {x: 0.5, y: 0.5};
    const {imageWidth, imageHeight} = this.data.sizes;
    this.carried = {name, left: Math.round(from.x * imageWidth), top: Math.round(from.y * imageHeight)};
    this.showCross();
    this.said.textContent = `${name} taken. Move it with the arrow keys, place it with Enter, leave it with Escape.`;
  }

  showCross() {
    this.cross.hidden = !this.carried;
    if (!this.carried) return;
    this.cross.style.left = `${this.carried.left}px`;
    this.cross.style.top = `${this.carried.top}px`;
  }

  key(event) {
    if (document.querySelector("dialog[open]") || event.ctrlKey || event.altKey || event.metaKey) return;
    const ways = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
    const way = ways[event.key];
    if (this.carried) {
      const {imageWidth, imageHeight} = this.data.sizes;
      const px = event.shiftKey ? FINE_PX : STEP_PX;
      if (way) {
        this.carried.left = Math.min(imageWidth, Math.max(0, this.carried.left + way[0] * px));
        this.carried.top = Math.min(imageHeight, Math.max(0, this.carried.top + way[1] * px));
      } else if (event.key === "Enter" || event.key === " ") {
        const {name, left, top} = this.carried;
        this.carried = null;
        this.put(name, {x: left / imageWidth, y: top / imageHeight}, "keyboard");
      } else if (event.key === "Escape") {
        this.carried = null;
        this.said.textContent = "";
      } else return;
      event.preventDefault();
      this.showCross();
    } else if (way && way[0] && !event.shiftKey) {
      event.preventDefault();
      this.turn(way[0], true);
    }
  }
}

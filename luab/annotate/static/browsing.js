// The browsing page: a grid of images in three columns; click those that show the class.

import {make, show} from "./page.js";
import {PageClock, TileRecord, ratios, tileSize} from "./records.js";

const INSTRUCTIONS = [
  "Click every image that contains at least one such object. It counts even if it is partly hidden, small, among other " +
  "objects, or if there is text on the image. Only photographs count: no drawings and no paintings. Click again to undo. " +
  "With the keyboard: Tab moves from image to image, the space bar selects. Please be accurate.",
];

export function showBrowsing(page, submit) {
  const clock = new PageClock(page.faithful);
  const withDot = !page.version.startsWith("NO_POINTER");
  const blurred = page.version.endsWith("NO_ORIGINAL");
  const tiles = page.images.map((image, place) => new Tile(image, place, page, clock, withDot));
  const {names, definition, links} = page.class;
  const title = names.map((name) => name.charAt(0).toUpperCase() + name.slice(1)).join(", ");
  const button = make("button", {type: "button", className: "submit"}, "Submit");
  button.addEventListener("click", () => {
    const endedAt = clock.now();
    const clockSteps = page.faithful ? {} : {clock: clock.advanced()};
    const annotations = tiles.map((tile) => tile.record());
    submit({
      page: {startedAt: clock.startedAt, endedAt, annotations, ...clockSteps}, endedAt, isDone: page.number === page.pages,
    });
  });
  show(make("section", {className: "question"},
    make("h2", {}, "Which of these images contain at least one object of this type?"),
    make("p", {className: "class-name"}, title),
    ...(definition ? [make("p", {className: "definition"}, definition)] : []),
    make("hr"),
    ...(page.instructions.length ? page.instructions : INSTRUCTIONS).map((text) => make("p", {className: "hint"}, text)),
    ...links.map((link) => make("p", {}, make("a", {href: link, target: "_blank", rel: "noreferrer noopener"}, link)))),
  make("div", {className: `grid${blurred ? " blurred" : ""}`, role: "group", "aria-label": `Images, ${title}`},
    ...tiles.map((tile) => tile.element)),
  make("div", {className: "bottom"}, button, make("p", {className: "counter"}, `${page.number} / ${page.pages}`)));
}

class Tile {
  constructor(image, place, page, clock, withDot) {
    Object.assign(this, {clock, withDot, faithful: page.faithful});
    this.data = new TileRecord(image.id);
    this.picture = make("img", {alt: "", draggable: false});
    this.dot = make("span", {className: "dot", hidden: true});
    this.element = make("div", {
      className: "tile", tabIndex: 0, role: "checkbox", "aria-checked": "false", "aria-label": `Image ${place + 1} of ${page.images.length}`,
    }, make("div", {className: "box"}, this.picture, this.dot));
    this.listen();
    this.picture.src = image.url;
  }

  listen() {
    const {picture, data, clock} = this;
    picture.addEventListener("load", () => {
      const {width, height} = tileSize(picture.naturalWidth, picture.naturalHeight, this.faithful);
      picture.style.width = `${width}px`;
      picture.style.height = `${height}px`;
    });
    picture.addEventListener("error", () => {
      data.loadFailed = true;
      this.element.classList.add("failed");
      this.element.setAttribute("aria-label", `${this.element.getAttribute("aria-label")}, could not be loaded`);
    });
    // A finger leaves no trace, as in the published tool; it is recorded as touch when it selects.
    const hovers = (event) => event.pointerType !== "touch" && !data.loadFailed;
    picture.addEventListener("pointerenter", (event) => hovers(event) && data.enter(clock.now()));
    picture.addEventListener("pointerleave", (event) => hovers(event) && data.leave(clock.now()));
    picture.addEventListener("pointermove", (event) => {
      if (!hovers(event)) return;
      const {x, y} = ratios(event, picture);
      data.move(x, y, clock.now(), clock.steady());
      this.point(x, y);
    });
    picture.addEventListener("click", (event) => {
      if (data.loadFailed) return;
      const {x, y} = ratios(event, picture);
      data.toggle(x, y, clock.now(), event.pointerType || "mouse");
      this.mark();
    });
    this.element.addEventListener("keydown", (event) => {
      if ((event.key !== " " && event.key !== "Enter") || event.repeat || data.loadFailed) return;
      event.preventDefault();
      data.toggle(null, null, clock.now(), "keyboard");
      this.mark();
    });
  }

  point(x, y) {
    if (!this.withDot || this.data.selected) return;
    this.dot.hidden = false;
    this.dot.style.left = `${this.picture.offsetLeft + x * this.picture.offsetWidth}px`;
    this.dot.style.top = `${this.picture.offsetTop + y * this.picture.offsetHeight}px`;
  }

  mark() {
    this.element.setAttribute("aria-checked", String(this.data.selected));
  }

  record() {
    const {picture, data} = this;
    if (!data.loadFailed && picture.naturalWidth) {
      const box = picture.getBoundingClientRect();
      data.sizes = {
        imagePosition: {x: Math.round(box.left + window.scrollX), y: Math.round(box.top + window.scrollY)},
        imageWidth: picture.offsetWidth, imageHeight: picture.offsetHeight,
        originalImageWidth: picture.naturalWidth, originalImageHeight: picture.naturalHeight,
      };
    }
    return data.record(this.faithful);
  }
}

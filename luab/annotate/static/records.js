// What is recorded, as pure state machines: events in, record out. No page, no clock, no network.
// `time` is what the record stores; `steady` is a clock that never jumps, in ms.

const GATE_MS = 1000 / 60;

/** One image of a browsing page. */
export class TileRecord {
  constructor(imageID) {
    this.imageID = imageID;
    this.selected = false;
    this.selectedCount = 0;
    this.selectedRecord = [];
    this.selectedInputs = [];
    this.hoveredCount = 0;
    this.hoveredRecord = [];
    this.mouseTracking = [];
    this.estimateTime = 0;
    this.sizes = {imagePosition: {x: 0, y: 0}, imageWidth: 0, imageHeight: 0, originalImageWidth: 0, originalImageHeight: 0};
    this.loadFailed = false;
    this.hovered = false;
    this.moved = false; // whether the pointer has moved over the image while it was not selected
    this.since = null; // start of the running interval of estimateTime
    this.deafUntil = -Infinity;
  }

  enter(time) {
    this.hovered = true;
    this.hoveredCount += 1;
    this.hoveredRecord.push({action: "enter", time});
    if (this.moved && !this.selected) this.since = time;
  }

  leave(time) {
    this.hovered = false;
    this.hoveredRecord.push({action: "leave", time});
    this.#close(time);
  }

  // The first sample of each 1000/60 ms counts; a move while selected is dropped, but still makes deaf.
  move(x, y, time, steady) {
    if (steady < this.deafUntil) return;
    this.deafUntil = steady + GATE_MS;
    if (this.selected) return;
    this.mouseTracking.push({x, y, time});
    if (!this.moved) {
      this.moved = true;
      if (this.hovered) this.since = time;
    }
  }

  // x and y are null if a key was used.
  toggle(x, y, time, input) {
    this.deafUntil = -Infinity;
    if (this.selected) {
      this.selected = false;
      if (this.hovered && this.moved) this.since = time;
      return;
    }
    this.selected = true;
    this.selectedCount += 1;
    this.selectedInputs.push(input);
    if (x !== null) this.selectedRecord.push({x, y, time});
    this.#close(time);
  }

  #close(time) {
    if (this.since !== null) this.estimateTime += Math.max(0, time - this.since);
    this.since = null;
  }

  // DEVIATES: the way of selecting and failures to load are recorded in keys of our own, unless the collection is faithful.
  record(faithful) {
    const {imageID, selected, selectedCount, selectedRecord, hoveredCount, hoveredRecord, mouseTracking, estimateTime} = this;
    const record = {
      imageID, selected, selectedCount, selectedRecord, hoveredCount, hoveredRecord, mouseTracking, estimateTime, ...this.sizes,
    };
    return structuredClone(faithful ? record : {...record, selectedInputs: this.selectedInputs, loadFailed: this.loadFailed});
  }
}

/** The image of a tagging page. Times are ms since the page began. */
export class TagRecord {
  constructor(imageURL, panes) {
    this.imageURL = imageURL;
    this.panes = panes;
    this.pane = 0;
    this.sawLastPane = panes.length === 1;
    this.sizes = {imageWidth: 0, imageHeight: 0, originalImageWidth: 0, originalImageHeight: 0};
    this.loadFailed = false;
    this.places = new Map(); // class -> where its icon is
    this.actionHistories = [];
    this.actionInputs = [];
    this.categoryHistories = [];
    this.mouseTracking = [];
    this.dragTracking = [];
  }

  place(icon, point, timeAt, input) {
    const from = this.places.get(icon);
    const action = from
      ? {actionType: "move", iconType: icon, pointFrom: from, pointTo: point, timeAt}
      : {actionType: "add", iconType: icon, pointTo: point, timeAt};
    this.places.set(icon, point);
    this.actionHistories.push(action);
    this.actionInputs.push(input);
  }

  remove(icon, timeAt, input) {
    const from = this.places.get(icon);
    if (!from) return;
    this.places.delete(icon);
    this.actionHistories.push({actionType: "remove", iconType: icon, pointFrom: from, timeAt});
    this.actionInputs.push(input);
  }

  // There is no wrap-around; the pane that is open at the start is not logged.
  open(index, usingKeyboard, timeAt) {
    if (index < 0 || index >= this.panes.length || index === this.pane) return false;
    this.pane = index;
    if (index === this.panes.length - 1) this.sawLastPane = true;
    this.categoryHistories.push({categoryIndex: index, categoryName: this.panes[index], usingKeyboard, timeAt});
    return true;
  }

  move(x, y, timeAt) {
    this.mouseTracking.push({x, y, timeAt});
  }

  drag(x, y, timeAt) {
    this.dragTracking.push({x, y, timeAt});
  }

  // DEVIATES: inputs, the path of drags and failures to load are recorded in keys of our own, unless faithful.
  record(timeSpend, faithful) {
    const {imageURL, actionHistories, categoryHistories, mouseTracking} = this;
    const record = {imageURL, ...this.sizes, timeSpend, actionHistories, categoryHistories, mouseTracking};
    const {actionInputs, dragTracking, loadFailed} = this;
    return structuredClone(faithful ? record : {...record, actionInputs, dragTracking, loadFailed});
  }
}

/** Displayed size of a browsing image in its box of 324 x 340 px; never enlarged. */
export function tileSize(width, height, faithful) {
  // DEVIATES: portraits keep their aspect; the published page squashes them to the height of the box.
  const scale = faithful ? Math.min(1, 324 / width) : Math.min(1, 324 / width, 340 / height);
  return {width: Math.round(width * scale), height: Math.min(340, Math.round(height * scale))};
}

/** Displayed size of a tagging image: 450 px high, at most `room` px wide. */
export function boardSize(width, height, room, faithful) {
  const wide = Math.round(450 * width / height);
  if (wide <= room) return {width: wide, height: 450};
  // DEVIATES: a wide image keeps its aspect; the published page squeezes it into the room that is left.
  return {width: room, height: faithful ? 450 : Math.round(room * height / width)};
}

/** Ratios of a pointer position in a picture; offsets are whole pixels, 0 and the full side included. */
export function ratios(event, picture) {
  const box = picture.getBoundingClientRect();
  // Clicks have whole coordinates, movements may have fractions: both are cut to the pixel that they are in.
  const inside = (at, from, side) => Math.min(side, Math.max(0, Math.floor(at) - Math.floor(from))) / side;
  return {
    x: inside(event.clientX, box.left, Math.round(box.width)),
    y: inside(event.clientY, box.top, Math.round(box.height)),
  };
}

/** Clock of one page: epoch ms and steady ms. */
export class PageClock {
  // DEVIATES: time advances steadily from the start of the page, so that a correction of the device's clock does not
  // tear a trace; the published tools read the wall clock each time.
  constructor(faithful) {
    this.faithful = faithful;
    this.startedAt = Date.now();
    this.steadyStart = performance.now();
  }

  steady() {
    return performance.now() - this.steadyStart;
  }

  now() {
    return this.faithful ? Date.now() : this.startedAt + Math.round(this.steady());
  }

  elapsed() {
    return this.now() - this.startedAt;
  }

  advanced() {
    return {wallMs: Date.now() - this.startedAt, steadyMs: this.steady()};
  }
}

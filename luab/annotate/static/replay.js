// Replays a stored page: the pointer's path over each image, the clicks, the icons.

import {make} from "./page.js";

export function showReplay(page, viewer) {
  const scenes = page.interface === "browsing" ? browsing(page) : tagging(page);
  const [first, last] = [Math.min(...scenes.map((scene) => scene.first)), Math.max(...scenes.map((scene) => scene.last))];
  const span = Math.max(1, Number.isFinite(last - first) ? last - first : 1);
  const slider = make("input", {type: "range", min: 0, max: span, value: span, "aria-label": "Time"});
  const shown = make("span", {});
  const button = make("button", {type: "button"}, "Play");
  const draw = () => {
    shown.textContent = `${(slider.value / 1000).toFixed(1)} s of ${(span / 1000).toFixed(1)} s`;
    for (const scene of scenes) scene.draw(first + Number(slider.value));
  };
  let playing = null;
  button.addEventListener("click", () => {
    if (playing) {
      cancelAnimationFrame(playing);
      playing = null;
      button.textContent = "Play";
      return;
    }
    const from = Number(slider.value) >= span ? 0 : Number(slider.value);
    const began = performance.now();
    button.textContent = "Stop";
    const step = (now) => {
      slider.value = from + (now - began);
      draw();
      if (Number(slider.value) < span) playing = requestAnimationFrame(step);
      else { playing = null; button.textContent = "Play"; }
    };
    playing = requestAnimationFrame(step);
  });
  slider.addEventListener("input", draw);
  viewer.replaceChildren(make("h2", {}, `Page ${page.number} of ${page.worker} (${page.version})`),
    make("div", {className: "controls"}, button, slider, shown),
    make("div", {className: `viewer ${page.interface === "tagging" ? "single" : ""}`}, ...scenes.map((scene) => scene.element)));
  draw();
  viewer.scrollIntoView();
}

function browsing(page) {
  return page.body.page.annotations.map((record, k) => {
    const slot = page.slots[k];
    const caption = `${slot.image} · ${slot.role}${record.selected ? " · selected" : ""} · ${record.estimateTime} ms · ` +
      `${record.mouseTracking.length} samples${record.selectedInputs?.length ? ` · ${record.selectedInputs.join(", ")}` : ""}`;
    const marks = record.selectedRecord.map((click) => ({...click, text: ""}));
    return scene(slot.url, caption, record.selected, record.mouseTracking, marks);
  });
}

function tagging(page) {
  const record = page.body.page.annotation;
  const at = (entry) => ({...entry, time: entry.timeAt});
  const marks = record.actionHistories.filter((action) => action.pointTo)
    .map((action) => ({...action.pointTo, time: action.timeAt, text: action.iconType}));
  const trace = [...record.mouseTracking, ...(record.dragTracking ?? [])].map(at).sort((a, b) => a.time - b.time);
  const caption = `${page.slots[0].image} · ${page.slots[0].role} · ${record.actionHistories.length} actions · ${record.timeSpend} ms`;
  return [scene(page.slots[0].url, caption, false, trace, marks)];
}

function scene(url, caption, selected, trace, marks) {
  const canvas = make("canvas", {});
  const image = make("img", {src: url, alt: caption});
  const element = make("figure", {className: selected ? "selected" : ""}, make("div", {className: "frame"}, image, canvas), make("figcaption", {}, caption));
  const times = [...trace, ...marks].map((entry) => entry.time);
  let until = Infinity;
  const draw = (time) => {
    until = time;
    if (!image.clientWidth) return;
    const scale = window.devicePixelRatio;
    canvas.width = image.clientWidth * scale;
    canvas.height = image.clientHeight * scale;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const place = ({x, y}) => [x * image.clientWidth, y * image.clientHeight];
    const before = trace.filter((sample) => sample.time <= time);
    for (const [colour, width] of [["#fff", 4], ["#d50000", 2]]) {
      pen.beginPath();
      before.forEach((sample) => pen.lineTo(...place(sample)));
      pen.strokeStyle = colour;
      pen.lineWidth = width;
      pen.stroke();
    }
    for (const mark of marks.filter((one) => one.time <= time)) {
      const [x, y] = place(mark);
      pen.beginPath();
      pen.arc(x, y, 6, 0, 2 * Math.PI);
      pen.fillStyle = "#00b0ff";
      pen.fill();
      pen.strokeStyle = "#fff";
      pen.stroke();
      pen.fillStyle = "#000";
      pen.font = "13px system-ui";
      pen.fillText(mark.text, x + 9, y + 4);
    }
  };
  image.addEventListener("load", () => draw(until));
  return {element, draw, first: Math.min(...times), last: Math.max(...times)};
}

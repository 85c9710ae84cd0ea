// The large picture: its layers, zoom, pan, window and level.
const viewer = byId("viewer");
const canvas = viewer.querySelector("svg");
const layers = byId("viewer-layers");
const said = byId("viewer-said");
const slider = (name) => Number(byId("viewer-" + name).value);
const view = { width: 1, height: 1, zoom: 1, x: 0, y: 0 };
const MOST = 8; // times; the picture has 256 pixels

const keepInside = (start, whole) => Math.min(Math.max(start, 0), whole - whole / view.zoom);
const drawView = () => {
  view.x = keepInside(view.x, view.width);
  view.y = keepInside(view.y, view.height);
  canvas.setAttribute("viewBox", `${view.x} ${view.y} ${view.width / view.zoom} ${view.height / view.zoom}`);
  viewer.classList.toggle("zoomed", view.zoom > 1);
  say();
};
const say = () => {
  const inverted = byId("viewer-invert").getAttribute("aria-pressed") === "true" ? ", inverted" : "";
  said.textContent = `Zoom ${Math.round(100 * view.zoom)} %, window ${slider("window")} %, level ${slider("level")} %${inverted}`;
};
const pixelsEach = () => canvas.getScreenCTM().a; // screen pixels to one of the picture
const zoomAt = (factor, x, y) => {
  const zoom = Math.min(Math.max(view.zoom * factor, 1), MOST);
  const fixed = new DOMPoint(x, y).matrixTransform(canvas.getScreenCTM().inverse());
  for (const axis of ["x", "y"]) view[axis] = fixed[axis] - ((fixed[axis] - view[axis]) * view.zoom) / zoom;
  view.zoom = zoom;
  drawView();
};
const zoomBy = (factor) => {
  const box = canvas.getBoundingClientRect();
  zoomAt(factor, box.left + box.width / 2, box.top + box.height / 2);
};
const panBy = (x, y) => {
  view.x -= x / pixelsEach();
  view.y -= y / pixelsEach();
  drawView();
};
// Grey values: those of the window spread over black to white, its middle at the level; an inverted one the other way.
const drawWindow = () => {
  const inverted = byId("viewer-invert").getAttribute("aria-pressed") === "true";
  const slope = (inverted ? -100 : 100) / slider("window");
  const intercept = 0.5 - (slope * slider("level")) / 100;
  all("#grey-window feComponentTransfer > *").forEach((one) => {
    one.setAttribute("slope", slope);
    one.setAttribute("intercept", intercept);
  });
  viewer.style.setProperty("--fill", slider("fill") / 100);
  say();
};
const setSlider = (name, wanted) => { byId("viewer-" + name).value = wanted; };
const invert = () => byId("viewer-invert").click();
const reset = () => {
  for (const [name, wanted] of [["window", 100], ["level", 50], ["fill", 0]]) setSlider(name, wanted);
  byId("viewer-invert").setAttribute("aria-pressed", "false");
  drawWindow();
  showWhole();
};
const showWhole = () => {
  Object.assign(view, { zoom: 1, x: 0, y: 0 });
  drawView();
};
const press = (button) => {
  const pressed = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(pressed));
  return pressed;
};
// Show a row's picture, whole; layers and window stay as they were chosen. Say whether there is one.
const showPicture = (row, flags) => {
  const drawn = byId("picture-" + row);
  layers.replaceChildren(...(drawn ? drawn.cloneNode(true).children : []));
  if (!drawn) return false;
  const { width, height } = drawn.ownerSVGElement.viewBox.baseVal;
  Object.assign(view, { width, height });
  byId("layer-heat").hidden = !layers.querySelector(".heat");
  byId("viewer-sides").textContent = flags.includes("laterality_unverified")
    ? "R and L: taken from the usual position; the file does not say the side."
    : "R and L: the patient’s right and left.";
  showWhole();
  return true;
};

for (const name of ["picture", "lung", "infection", "heat"]) {
  const button = byId("layer-" + name);
  button.addEventListener("click", () => viewer.style.setProperty("--show-" + name, press(button) ? "visible" : "hidden"));
}
for (const name of ["window", "level", "fill"]) byId("viewer-" + name).addEventListener("input", drawWindow);
byId("viewer-invert").addEventListener("click", (event) => { press(event.currentTarget); drawWindow(); });
byId("viewer-in").addEventListener("click", () => zoomBy(1.5));
byId("viewer-out").addEventListener("click", () => zoomBy(1 / 1.5));
byId("viewer-reset").addEventListener("click", reset);

viewer.addEventListener("keydown", (event) => {
  const across = { ArrowLeft: 1, ArrowRight: -1 }[event.key] ?? 0;
  const down = { ArrowUp: 1, ArrowDown: -1 }[event.key] ?? 0;
  const act = { "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 0: reset, i: invert }[event.key]
    ?? ((across || down) && view.zoom > 1 ? () => panBy(40 * across, 40 * down) : null);
  if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault(); // a picture that is moved is not changed for the next one
  act();
});
viewer.addEventListener("wheel", (event) => {
  const pixels = event.deltaY * (event.deltaMode ? 33 : 1);
  if (pixels > 0 && view.zoom === 1) return; // the dialog scrolls on
  event.preventDefault();
  zoomAt(Math.exp(-pixels * (event.ctrlKey ? 0.01 : 0.0025)), event.clientX, event.clientY); // ctrl: a pinch on a touch pad
}, { passive: false });

const pointers = new Map();
viewer.addEventListener("pointerdown", (event) => {
  pointers.set(event.pointerId, event);
  viewer.setPointerCapture(event.pointerId);
});
for (const name of ["pointerup", "pointercancel"]) viewer.addEventListener(name, (event) => pointers.delete(event.pointerId));
viewer.addEventListener("pointermove", (event) => {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const [x, y] = [event.clientX - before.clientX, event.clientY - before.clientY];
  const other = [...pointers.values()].find((one) => one.pointerId !== event.pointerId);
  if (other) { // two fingers
    const apartBy = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) || 1;
    zoomAt(apartBy(event) / apartBy(before), (event.clientX + other.clientX) / 2, (event.clientY + other.clientY) / 2);
    panBy(x / 2, y / 2);
  } else if (event.shiftKey) {
    setSlider("window", slider("window") + x / 3);
    setSlider("level", slider("level") + y / 3);
    drawWindow();
  } else panBy(x, y);
  pointers.set(event.pointerId, event);
});

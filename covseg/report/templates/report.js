// What all parts of the script share: the embedded rows, their lines and tiles, how a number is written.
const byId = (name) => document.getElementById(name);
const all = (selector) => [...document.querySelectorAll(selector)];
const data = JSON.parse(byId("data").textContent);
const at = Object.fromEntries(data.columns.map((name, column) => [name, column]));
const value = (row, name) => data.rows[row][at[name]];
const place = (element) => Number(element.dataset.place);
const lines = all("#rows tbody tr");
const tiles = all("#gallery li");
const apart = all("#look-gallery li, #refused-gallery li"); // no filter moves these
const spoken = (code) => code.replaceAll("_", " ");
const write = (kind, found) => {
  if (found === null) return "–";
  if (kind === "code") return spoken(found);
  if (kind === "percent") return found > 0 && found < 0.0005 ? "<0.1\u202f%" : `${(100 * found).toFixed(found === 0 || found === 1 ? 0 : 1)}\u202f%`;
  if (kind === "probability") return found > 0 && found < 0.005 ? "<\u00a00.01" : found.toFixed(2);
  return typeof found === "number" ? String(Number(found.toFixed(2))) : String(found);
};

// One stop for the Tab key in each list; arrow keys move inside it.
const buttons = (items) => items.filter((item) => !item.hidden).map((item) => item.querySelector("button"));
const makeStop = (items) => items.forEach((button, index) => { button.tabIndex = index ? -1 : 0; });
const move = (items, event, step) => {
  const here = items.indexOf(document.activeElement);
  const to = { Home: 0, End: items.length - 1 }[event.key] ?? (event.key in step ? here + step[event.key] : -1);
  if (here < 0 || !items[to]) return;
  event.preventDefault();
  items[here].tabIndex = -1;
  items[to].tabIndex = 0;
  items[to].focus();
};
const perLine = () => {
  const tops = tiles.filter((tile) => !tile.hidden).map((tile) => tile.offsetTop);
  return Math.max(1, tops.filter((top) => top === tops[0]).length);
};
byId("rows").addEventListener("keydown", (event) => move(buttons(lines), event, { ArrowDown: 1, ArrowUp: -1 }));
byId("gallery")?.addEventListener("keydown", (event) =>
  move(buttons(tiles), event, { ArrowRight: 1, ArrowLeft: -1, ArrowDown: perLine(), ArrowUp: -perLine() }));

for (const [name, css] of [["contours", "hide-contours"], ["heat", "show-heat"]]) {
  all(`[data-toggle="${name}"]`).forEach((button) => button.addEventListener("click", () => {
    button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
    document.body.classList.toggle(css);
  }));
}
document.documentElement.classList.add("scripted");

// Filter, sort, and the charts, whose bars filter: table and pictures alike.
let shown = lines.map(place); // places of the rows that pass the filter, in the order of the table
const count = (number) => number.toLocaleString("en");
const texts = data.rows.map((row) =>
  spoken(["input_id", "status", "reason", "grade", "qc_flags", "doubt_reason"].map((name) => row[at[name]] ?? "").join(" ")).toLowerCase());
// Each bar holds its lower edge, as covseg.report.cohort counts them; exactly 0 % has its own.
const barOf = (fraction) => fraction && 1 + Math.min(Math.floor(Number((fraction * data.bins).toFixed(9))), data.bins - 1);
const asksForALook = (row) => value(row, "status") === "scored" && value(row, "qc_flags").some((flag) => !data.notes.includes(flag));
const passes = {
  text: (row, wanted) => texts[row].includes(spoken(wanted.trim().toLowerCase())),
  grade: (row, wanted) => value(row, "grade") === wanted,
  fraction: (row, wanted) => String(barOf(value(row, "infected_fraction"))) === wanted,
  flag: (row, wanted) => (wanted === "*" ? asksForALook(row) : value(row, "qc_flags").includes(wanted)),
  status: (row, wanted) => (wanted === "refused" ? value(row, "status") !== "scored" : value(row, "status") === wanted),
  reason: (row, wanted) => value(row, "reason") === wanted,
};
const filters = Object.keys(passes).map((name) => [name, byId("filter-" + name)]);

const update = () => {
  const chosen = filters.filter(([, filter]) => filter.value);
  const wanted = new Set(lines.map(place).filter((row) => chosen.every(([name, filter]) => passes[name](row, filter.value))));
  for (const [items, printed] of [[lines, data.printed[0]], [tiles, data.printed[1]]]) {
    let seen = 0;
    for (const item of items) {
      item.hidden = !wanted.has(place(item));
      item.classList.toggle("beyond", !item.hidden && ++seen > printed);
    }
    makeStop(buttons(items));
  }
  shown = lines.filter((line) => !line.hidden).map(place);
  const picturesShown = tiles.filter((tile) => !tile.hidden).length;
  byId("images-none").hidden = shown.length > 0;
  if (tiles.length) byId("pictures-none").hidden = picturesShown > 0 || !shown.length;
  byId("rows-save").disabled = !shown.length;
  byId("images-shown").textContent = (shown.length ? "" : "No image matches: ") +
    `${count(shown.length)} of ${count(lines.length)} rows and ${picturesShown} of ${tiles.length} pictures shown`;
};
const choose = (name, wanted) => {
  for (const [one, filter] of filters) filter.value = one === name ? wanted : "";
  update();
};
const sortBy = (header) => {
  const name = header.dataset.column;
  const first = header.dataset.kind === "text" ? "ascending" : "descending";
  const order = header.ariaSort === first ? (first === "ascending" ? "descending" : "ascending") : first;
  all("#rows th").forEach((other) => other.removeAttribute("aria-sort"));
  header.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const rank = (line) => {
    const found = value(place(line), name);
    if (name === "grade" && found !== null) return data.grades.indexOf(found); // by severity, not by alphabet
    return Array.isArray(found) ? found.length || null : found;
  };
  const compare = (a, b) => (typeof a === "string" ? (a < b ? -1 : Number(a > b)) : a - b);
  lines.sort((one, other) => {
    const [a, b] = [rank(one), rank(other)];
    if (a === null || b === null) return Number(a === null) - Number(b === null); // no value comes last, either way
    return sign * compare(a, b) || place(one) - place(other);
  });
  lines[0].parentNode.append(...lines);
  const placed = new Map(lines.map((line, index) => [place(line), index]));
  tiles.sort((one, other) => placed.get(place(one)) - placed.get(place(other)));
  byId("gallery")?.append(...tiles);
  update();
};

for (const [, filter] of filters) for (const event of ["input", "change"]) filter.addEventListener(event, update);
byId("filter-reset").addEventListener("click", () => choose("", ""));
all("a[data-filter]").forEach((link) => link.addEventListener("click", () => choose(link.dataset.filter, link.dataset.value)));
all("#rows th").forEach((header) => header.querySelector("button").addEventListener("click", () => sortBy(header)));
update();

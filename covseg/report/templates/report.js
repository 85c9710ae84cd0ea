"use strict";
(() => {
  const byId = (name) => document.getElementById(name);
  const data = JSON.parse(byId("data").textContent);
  const at = Object.fromEntries(data.columns.map((name, place) => [name, place]));
  const value = (place, name) => data.rows[place][at[name]];
  const lines = [...document.querySelectorAll("#rows tbody tr")];
  const tiles = [...document.querySelectorAll("#gallery li")];
  const apart = [...document.querySelectorAll("#look-gallery li, #refused-gallery li")]; // no filter moves these
  const place = (element) => Number(element.dataset.place);
  let shown = lines.map(place); // places of the rows that pass the filter, in the order of the table
  document.documentElement.classList.add("scripted");
  if (!lines.length) return;

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

  // Filter and sort.
  const count = (number) => number.toLocaleString("en");
  const words = data.rows.map((row) =>
    ["input_id", "status", "reason", "grade", "qc_flags", "doubt_reason"].map((name) => row[at[name]] ?? "").join(" ").replaceAll("_", " ").toLowerCase());
  const filters = ["text", "grade", "flag", "status"].map((name) => byId("filter-" + name));
  const asksForALook = (row) => value(row, "status") === "scored" && value(row, "qc_flags").some((flag) => !data.notes.includes(flag));
  const passes = (row, text, grade, flag, status) =>
    words[row].includes(text) &&
    (!grade || (value(row, "grade") ?? "") === grade) &&
    (!flag || (flag === "*" ? asksForALook(row) : value(row, "qc_flags").includes(flag))) &&
    (!status || (status === "refused" ? value(row, "status") !== "scored" : value(row, "status") === status));
  const update = () => {
    const [text, ...rest] = filters.map((filter) => filter.value);
    const wanted = new Set(data.rows.map((_, row) => row).filter((row) => passes(row, text.trim().toLowerCase().replaceAll("_", " "), ...rest)));
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
    byId("images-shown").textContent = (shown.length ? "" : "No image matches: ") +
      `${count(shown.length)} of ${count(lines.length)} rows and ${picturesShown} of ${tiles.length} pictures shown`;
  };
  const sortBy = (header) => {
    const name = header.dataset.column;
    const first = header.dataset.kind === "text" ? "ascending" : "descending";
    const order = header.ariaSort === first ? (first === "ascending" ? "descending" : "ascending") : first;
    document.querySelectorAll("#rows th").forEach((other) => other.removeAttribute("aria-sort"));
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

  // One image, large.
  const dialog = byId("image");
  let opened = 0;
  const tileOf = (row) => [...tiles, ...apart].find((one) => place(one) === row && one.querySelector(".layers"));
  const make = (tag, text, name) => Object.assign(document.createElement(tag), { textContent: text ?? "", className: name ?? "" });
  const write = (kind, found) => {
    if (found === null) return "–";
    if (kind === "code") return found.replaceAll("_", " ");
    if (kind === "percent") return found > 0 && found < 0.0005 ? "<0.1\u202f%" : `${(100 * found).toFixed(found === 0 || found === 1 ? 0 : 1)}\u202f%`;
    if (kind === "probability") return found > 0 && found < 0.005 ? "<\u00a00.01" : found.toFixed(2);
    return typeof found === "number" ? String(Number(found.toFixed(2))) : String(found);
  };
  const zones = (row) => {
    const table = make("table", "", "zones");
    const heading = table.createTHead().insertRow();
    ["Zone", "Right", "Left"].forEach((text) => { heading.append(Object.assign(make("th", text), { scope: "col" })); });
    const body = table.createTBody();
    for (const level of ["upper", "middle", "lower"]) {
      const line = body.insertRow();
      line.append(Object.assign(make("th", level), { scope: "row" }));
      for (const side of ["right", "left"]) line.append(make("td", write("percent", value(row, `infected_fraction_${side}_${level}`))));
    }
    return table;
  };
  const facts = (row) => {
    const list = make("dl", "", "facts");
    for (const [name, label, kind] of data.details) {
      if (value(row, name) !== null) list.append(make("dt", label), make("dd", write(kind, value(row, name))));
    }
    return list;
  };
  // Why nothing is marked on a scored image.
  const unmarked = (row) => {
    const [fraction, probability, least] = [value(row, "infected_fraction"), value(row, "infection_probability"), data.presence];
    if (fraction > 0 || probability === null) return [];
    const said = write("probability", probability);
    const precise = (number) => String(Number(number.toFixed(3)));
    const limit = least === null ? "" : precise(least);
    const before = tileOf(row)?.querySelector(".heat") ? " The probability picture comes before any threshold." : "";
    if (least !== null && probability < least) {
      const close = probability >= 0.005 && least - probability < 0.005;
      const [low, high] = close ? [probability, least].map((number) => number.toFixed(6)) : [said, limit];
      return [`Infection probability ${low} is under the model’s ${high}: nothing is marked on this image.${before}`];
    }
    if (fraction === null) return []; // no lung found is the reason
    const pixels = "no part of the lung reached the pixel threshold, or only parts too small to count";
    if (least === null) return [`Nothing is marked on this image: its infection probability, ${said}, is under the model’s image-level threshold, or ${pixels}.${before}`];
    return [`Nothing is marked on this image: ${least ? `its infection probability, ${said}, reaches the model’s ${limit}, but ` : ""}${pixels}.${before}`];
  };
  const headline = (row) => {
    if (value(row, "status") !== "scored") {
      const reason = value(row, "reason") ?? value(row, "status");
      const status = value(row, "status");
      const parts = [make("p", "Refused: " + reason.replaceAll("_", " "), "total"), make("p", data.reasons[reason])];
      if (status !== reason) parts.push(make("p", `Status ${status.replaceAll("_", " ")}: ${data.statuses[status] ?? ""}`, "soft"));
      return parts;
    }
    const fraction = value(row, "infected_fraction");
    const parts = [make("p", fraction === null ? "No lung found" : `${write("percent", fraction)} marked`, "total")];
    if (fraction !== null) parts.push(make("p", `of the lung area; grade ${value(row, "grade")}, a share of area, not clinical severity`, "soft"));
    if (value(row, "fraction_low") !== null)
      parts.push(make("p", `interval of the fraction: ${write("percent", value(row, "fraction_low"))} to ${write("percent", value(row, "fraction_high"))}`, "soft"));
    parts.push(...unmarked(row).map((text) => make("p", text)));
    if (fraction === 0) parts.push(make("p", "0 % does not mean clear lungs: see Severity.", "callout"));
    return [...parts, zones(row)];
  };
  const flags = (row) => {
    const list = make("ul");
    for (const flag of value(row, "qc_flags")) {
      const item = make("li");
      item.append(make("strong", flag.replaceAll("_", " ") + ". "), data.flags[flag] ?? "");
      list.append(item);
    }
    return list.children.length ? [make("h3", "Flags"), list] : [];
  };
  const show = (row) => {
    opened = row;
    const tile = tileOf(row);
    const picture = byId("image-picture");
    picture.replaceChildren(tile ? tile.querySelector(".layers").cloneNode(true) : make("p", "No picture of this image is in the report.", "soft"));
    picture.querySelector("img")?.classList.add("frame");
    const scored = value(row, "status") === "scored";
    picture.hidden = !scored && !tile; // of the refused, those of the input filter alone have one
    byId("image-resolution").hidden = !tile;
    byId("image-toggles").hidden = !tile || !scored;
    dialog.querySelector('[data-toggle="heat"]').hidden = !picture.querySelector(".heat");
    dialog.classList.toggle("plainly", !tile);
    byId("image-title").textContent = "Image " + value(row, "input_id");
    byId("image-row").replaceChildren(...headline(row), ...flags(row), facts(row));
    const here = shown.indexOf(row);
    byId("image-previous").disabled = here <= 0;
    byId("image-next").disabled = here < 0 || here === shown.length - 1;
    if (!dialog.open) {
      dialog.showModal();
      byId("image-close").focus();
    }
    dialog.scrollTop = 0;
  };
  const step = (by) => {
    const next = shown[shown.indexOf(opened) + by];
    if (next !== undefined) show(next);
  };

  // Wire the page.
  for (const filter of filters) for (const event of ["input", "change"]) filter.addEventListener(event, update);
  byId("filter-reset").addEventListener("click", () => { filters.forEach((filter) => { filter.value = ""; }); update(); });
  document.querySelectorAll("#rows th").forEach((header) => header.querySelector("button").addEventListener("click", () => sortBy(header)));
  lines.forEach((line) => line.addEventListener("click", () => show(place(line))));
  [...tiles, ...apart].forEach((tile) => tile.addEventListener("click", () => show(place(tile))));
  document.querySelectorAll("a[data-flag]").forEach((link) => link.addEventListener("click", () => {
    filters.forEach((filter) => { filter.value = filter.id === "filter-flag" ? link.dataset.flag : ""; });
    update();
  }));
  byId("rows")?.addEventListener("keydown", (event) => move(buttons(lines), event, { ArrowDown: 1, ArrowUp: -1 }));
  byId("gallery")?.addEventListener("keydown", (event) =>
    move(buttons(tiles), event, { ArrowRight: 1, ArrowLeft: -1, ArrowDown: perLine(), ArrowUp: -perLine() }));
  for (const [name, css] of [["contours", "hide-contours"], ["heat", "show-heat"]]) {
    document.querySelectorAll(`[data-toggle="${name}"]`).forEach((button, index, all) => button.addEventListener("click", () => {
      document.body.classList.toggle(css);
      all.forEach((one) => one.setAttribute("aria-pressed", String(one.getAttribute("aria-pressed") !== "true")));
    }));
  }
  byId("image-previous").addEventListener("click", () => step(-1));
  byId("image-next").addEventListener("click", () => step(1));
  byId("image-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => { if (event.key === "ArrowLeft") step(-1); else if (event.key === "ArrowRight") step(1); });
  update();
})();

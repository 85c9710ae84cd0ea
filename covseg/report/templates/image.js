// One image, large: its picture, its numbers in words, and the way to the next.
const dialog = byId("image");
let walked = []; // places that Previous and Next lead through
let opened = 0;
const make = (tag, text, name) => Object.assign(document.createElement(tag), { textContent: text ?? "", className: name ?? "" });
const zones = (row) => {
  const table = make("table", "", "zones");
  const heading = table.createTHead().insertRow();
  ["Marked", "Right", "Left"].forEach((text) => { heading.append(Object.assign(make("th", text), { scope: "col" })); });
  const body = table.createTBody();
  for (const [level, part] of [["whole lung", ""], ["upper", "_upper"], ["middle", "_middle"], ["lower", "_lower"]]) {
    const line = body.insertRow();
    line.append(Object.assign(make("th", level), { scope: "row" }));
    for (const side of ["right", "left"]) line.append(make("td", write("percent", value(row, `infected_fraction_${side}${part}`))));
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
  const found = write("probability", probability);
  const precise = (number) => String(Number(number.toFixed(3)));
  const limit = least === null ? "" : precise(least);
  const before = byId("picture-" + row)?.querySelector(".heat") ? " The probability picture comes before any threshold." : "";
  if (least !== null && probability < least) {
    const close = probability >= 0.005 && least - probability < 0.005;
    const [low, high] = close ? [probability, least].map((number) => number.toFixed(6)) : [found, limit];
    return [`Infection probability ${low} is under the model’s ${high}: nothing is marked on this image.${before}`];
  }
  if (fraction === null) return []; // no lung found is the reason
  const pixels = "no part of the lung reached the pixel threshold, or only parts too small to count";
  if (least === null) return [`Nothing is marked on this image: its infection probability, ${found}, is under the model’s image-level threshold, or ${pixels}.${before}`];
  return [`Nothing is marked on this image: ${least ? `its infection probability, ${found}, reaches the model’s ${limit}, but ` : ""}${pixels}.${before}`];
};
const headline = (row) => {
  if (value(row, "status") !== "scored") {
    const reason = value(row, "reason") ?? value(row, "status");
    const status = value(row, "status");
    const parts = [make("p", "Refused: " + spoken(reason), "total"), make("p", data.reasons[reason])];
    if (status !== reason) parts.push(make("p", `Status ${spoken(status)}: ${data.statuses[status] ?? ""}`, "soft"));
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
    item.append(make("strong", spoken(flag) + ". "), data.flags[flag] ?? "");
    list.append(item);
  }
  return list.children.length ? [make("h3", "Flags"), list] : [];
};
// Files beside the report; a name of another form (a mask packed with others) is not led to.
const files = (row) => {
  const line = make("p", "", "toggles");
  for (const [text, path] of [["Overlay file", data.overlays[value(row, "input_id")]], ["Mask file", value(row, "mask_uri")]]) {
    if (/^(overlays|masks)\/[\w.-]+$/.test(path ?? "")) line.append(Object.assign(make("a", text, "button"), { href: path, target: "_blank", rel: "noopener" }));
  }
  return line.children.length ? [line] : [];
};

const show = (row) => {
  opened = row;
  const scored = value(row, "status") === "scored";
  const pictured = showPicture(row, value(row, "qc_flags"));
  byId("image-picture").hidden = !pictured;
  byId("image-none").hidden = pictured || !scored; // of the refused, those of the input filter alone have a picture
  dialog.classList.toggle("judged", !scored); // nothing was marked on it
  dialog.classList.toggle("plainly", !pictured);
  byId("image-title").textContent = "Image " + value(row, "input_id");
  byId("image-row").replaceChildren(...headline(row), ...files(row), ...flags(row), facts(row));
  const [here, held] = [walked.indexOf(row), document.activeElement];
  byId("image-place").textContent = `${here + 1} of ${walked.length}`;
  byId("image-previous").disabled = here <= 0;
  byId("image-next").disabled = here === walked.length - 1;
  if (!dialog.open) {
    dialog.showModal();
    byId("image-close").focus();
  } else if (held.disabled) byId("image-close").focus(); // the last Next must not lose the focus
  dialog.scrollTop = 0;
};
const open = (row, among) => {
  walked = among;
  show(row);
};
const step = (by) => {
  const next = walked[walked.indexOf(opened) + by];
  if (next !== undefined) show(next);
};

for (const one of [...lines, ...tiles]) one.addEventListener("click", () => open(place(one), shown));
for (const one of apart) {
  const box = one.closest("#look-gallery, #refused-gallery");
  one.addEventListener("click", () => open(place(one), apart.filter((other) => box.contains(other)).map(place)));
}
byId("image-previous").addEventListener("click", () => step(-1));
byId("image-next").addEventListener("click", () => step(1));
byId("image-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.target.matches("input")) return; // a slider and a moved picture keep their arrows
  if (event.key === "ArrowLeft") step(-1);
  else if (event.key === "ArrowRight") step(1);
});

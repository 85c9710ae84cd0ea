// The rows that pass the filter, in the order of the table, as a CSV file: texts and lists as in severity.csv.
const disarmed = (text) => (/^[=+\-@\t\r]/.test(text) ? "'" + text : text).replaceAll("\r", "\\r"); // no formula for a spreadsheet
const cell = (found) => {
  if (found === null || typeof found === "number") return String(found ?? "");
  const text = disarmed(Array.isArray(found) ? found.join(";") : found);
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};
const asCsv = (rows) =>
  [[...data.columns, "intended_use"], ...rows.map((row) => [...data.rows[row], data.use])]
    .map((row) => row.map(cell).join(",") + "\n").join("");

byId("rows-save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([asCsv(shown)], { type: "text/csv" }));
  link.download = "severity-filtered.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000); // a browser may ask where to put it first
});

// Tables of the class "sortable": a click on a header sorts by its column, a second one turns round.
// Cells say what they are sorted by in data-sort; empty ones go last.
for (const table of document.querySelectorAll("table.sortable")) {
  if (table.dataset.sorts) continue;  // a notebook runs this again for each table
  table.dataset.sorts = "1";
  const body = table.tBodies[0];
  const headers = [...table.tHead.rows[0].cells];
  const key = (row, column) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
  const compare = (a, b) => {
    const x = Number(a), y = Number(b);
    if (!Number.isNaN(x) && !Number.isNaN(y)) return x - y;
    return a.localeCompare(b, undefined, { numeric: true });  // "10 [8, 12]" comes after "9 [7, 9]"
  };
  const sort = (column, descending) => {
    const rows = [...body.rows].map((row) => [key(row, column), row]);
    rows.sort(([a], [b]) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      return descending ? compare(b, a) : compare(a, b);
    });
    body.append(...rows.map(([, row]) => row));
    headers.forEach((header) => header.removeAttribute("aria-sort"));
    headers[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
  };
  const select = table.closest(".sorted")?.querySelector("select");
  headers.forEach((header, column) => {
    if (!header.dataset.sortable) return;
    const button = document.createElement("button");
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      sort(column, header.getAttribute("aria-sort") !== "descending");
    });
    const words = header.dataset.sortable === "text"
      ? [["A to Z", false], ["Z to A", true]] : [["largest first", true], ["smallest first", false]];
    for (const [word, descending] of words) {
      select?.add(new Option(`${button.textContent.trim()}: ${word}`, `${column} ${descending}`));
    }
  });
  select?.addEventListener("change", () => {
    const [column, descending] = select.value.split(" ");
    if (column) sort(Number(column), descending === "true");
  });
}

"use strict";
/* A grid of cells of one size, of which only those in sight are in the document. */
const gallery = (() => {
  const CELL = { width: 166, height: 222 };
  const SHOWN = ["atlas_heldout_psnr", "psnr", "n_gaussians"];
  const at = (id) => document.getElementById(id);
  const [view, cells] = [at("view"), at("cells")];
  const rows = [];
  const withPage = new Set();
  let columns = [], sheet = {}, index = {}, place = 0, found = [];

  const value = (row, name) => row[index[name]];
  const element = (name, text, attributes = {}) => {
    const made = document.createElement(name);
    made.textContent = text;
    for (const [key, entry] of Object.entries(attributes)) made.setAttribute(key, entry);
    return made;
  };

  function setColumns(given) {
    ({ columns, sheet } = given);
    columns.forEach((column, k) => { index[column.name] = k; });
    place = columns.length;
    for (const [id, first] of [["column", "nothing"], ["order", "the manifest's order"]]) {
      at(id).append(element("option", first, { value: "" }));
      for (const column of columns) at(id).append(element("option", column.title, { value: column.name }));
    }
  }

  function showFields() {
    const column = columns[index[at("column").value]];
    at("contains-label").hidden = !column || !column.text;
    at("low-label").hidden = at("high-label").hidden = !column || column.text;
  }

  function update() {
    const wanted = at("search").value.toLowerCase();
    const [uid, caption] = [index.uid, index.caption];
    const column = columns[index[at("column").value]];
    const [low, high] = [at("low").valueAsNumber, at("high").valueAsNumber];
    const contains = at("contains").value.toLowerCase();
    const passes = (row) => {
      if (wanted && !row[uid].toLowerCase().includes(wanted) && !row[caption].toLowerCase().includes(wanted)) return false;
      if (!column) return true;
      const entry = value(row, column.name);
      if (column.text) return entry.toLowerCase().includes(contains);
      if (Number.isNaN(low) && Number.isNaN(high)) return true;
      return entry !== null && !(entry < low) && !(entry > high);
    };
    found = rows.filter(passes);
    const order = columns[index[at("order").value]];
    if (order) {
      const k = index[order.name], sign = Number(at("direction").value);
      const compare = order.text
        ? (a, b) => (a[k] < b[k] ? -sign : a[k] > b[k] ? sign : 0)
        : (a, b) => sign * (a[k] - b[k]);
      const missing = (row) => row[k] === null || row[k] === "";
      found = [...found.filter((row) => !missing(row)).sort(compare), ...found.filter(missing)];
    } else if (at("direction").value === "-1") found.reverse();
    at("count").textContent = `${found.length} of ${rows.length} objects`;
    view.scrollTop = 0;
    cells.replaceChildren();
    draw();
  }

  function cell(row) {
    const uid = value(row, "uid");
    const made = element("a", "", { class: "cell", href: withPage.has(uid) ? `files/objects/${uid}.html` : "#facts" });
    if (!withPage.has(uid)) made.addEventListener("click", (event) => { event.preventDefault(); showFacts(row); });
    made.title = value(row, "caption");
    const thumb = element("span", "", { class: "thumb" });
    const cellOf = row[place];
    if (cellOf >= 0) {
      const within = cellOf % (sheet.columns * sheet.rows);
      const number = String(Math.floor(cellOf / (sheet.columns * sheet.rows))).padStart(4, "0");
      const [left, top] = [(within % sheet.columns) * sheet.side, Math.floor(within / sheet.columns) * sheet.side];
      const picture = element("span", "", { role: "img", "aria-label": `Render of ${uid}` });
      picture.style.cssText = `width:${sheet.side}px;height:${sheet.side}px;background:url(files/thumbs-${number}.webp) -${left}px -${top}px`;
      thumb.append(picture);
    } else thumb.textContent = value(row, "status") === "ok" ? "no picture" : value(row, "reason");
    made.append(thumb, element("b", shortened(uid), { title: uid }));
    const order = at("order").value;
    const names = order && order !== "uid" && !SHOWN.includes(order) ? [order, ...SHOWN.slice(0, 2)] : SHOWN;
    for (const name of names) {
      const entry = value(row, name), column = columns[index[name]];
      if (entry !== null && entry !== "") made.append(element("span", `${column.text ? "" : `${short[name] || column.title}: `}${number(entry)}`, { class: "line" }));
    }
    return made;
  }
  const short = { atlas_heldout_psnr: "atlas dB", psnr: "fit dB" };
  // uids of one source often begin alike, and differ at their ends
  const shortened = (uid) => (uid.length > 19 ? [...uid].slice(0, 6).join("") + "\u2026" + [...uid].slice(-12).join("") : uid);
  const number = (entry) => (typeof entry === "number" && !Number.isInteger(entry) ? String(Number(entry.toPrecision(4))) : String(entry));

  function draw() {
    const across = Math.max(1, Math.floor(view.clientWidth / CELL.width));
    cells.style.height = `${Math.ceil(found.length / across) * CELL.height + 8}px`;
    const first = Math.max(0, Math.floor(view.scrollTop / CELL.height) - 1) * across;
    const last = Math.min(found.length, (Math.ceil((view.scrollTop + view.clientHeight) / CELL.height) + 1) * across);
    const there = new Map([...cells.children].map((one) => [Number(one.dataset.k), one]));
    for (const [k, one] of there) if (k < first || k >= last || Number(one.dataset.across) !== across) { one.remove(); there.delete(k); }
    for (let k = first; k < last; k++) {
      if (there.has(k)) continue;
      const made = cell(found[k]);
      made.dataset.k = k;
      made.dataset.across = across;
      made.style.left = `${(k % across) * CELL.width + 4}px`;
      made.style.top = `${Math.floor(k / across) * CELL.height + 4}px`;
      const next = [...cells.children].find((one) => Number(one.dataset.k) > k);
      cells.insertBefore(made, next || null); // in order, for the keyboard
    }
  }

  function showFacts(row) {
    const lines = columns.filter((column) => value(row, column.name) !== null && value(row, column.name) !== "").map((column) => {
      const line = document.createElement("tr");
      line.append(element("th", column.title, { scope: "row" }), element("td", number(value(row, column.name))));
      return line;
    });
    at("facts-table").replaceChildren(...lines);
    at("facts").showModal();
  }

  function start(pages) {
    for (const uid of pages) withPage.add(uid);
    at("controls").addEventListener("submit", (event) => event.preventDefault());
    at("controls").addEventListener("input", () => { showFields(); update(); });
    for (const button of document.querySelectorAll("[data-order]")) button.addEventListener("click", () => {
      at("order").value = button.dataset.order;
      at("direction").value = button.dataset.direction;
      update();
    });
    view.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
    new ResizeObserver(draw).observe(view);
    showFields();
    update();
  }

  return { columns: setColumns, add: (more) => { for (const row of more) rows.push(row); }, pages: start };
})();

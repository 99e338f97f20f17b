// A table whose rows name latents: hover shows a latent's card, a click opens it. Text is drawn with
// textContent.
//
// data.columns: [{name, title, kind, help, width}]
//   kind: "number", "text", "quote" (of a text), "latent" (a link; `key`: the field of a row that
//   names its card and place) or "actions" (buttons of data.actions); width: in pixels, at most
// data.rows: [{key, texts, …}] a value by the name of each column, by which it is sorted; texts: of
//   numbers, as they are shown; key: of the card, and what it opens
// data.cards: {key: card}, see card.js; data.places: {key: query of its page}
// data.chosen: the key of the row that is open, or ""
// data.actions: [{name, title}]; row.pressed: the name of the one that is in force
// row.pale: whether it stands back
// data.height: in pixels, at most; a page that has less room for a table says so by --rows-room
// Sets the triggers `opened` to {what, key}, where what is "row", or "open" or "steer" for a link
// in it or in a card, and `acted` to {action, key}.
export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".rows");
  root.stop?.();
  root.replaceChildren();
  root.style.maxHeight = `min(${data.height}px, var(--rows-room, ${data.height}px))`;
  const go = (what, key) => setTriggerValue("opened", { what, key });
  const cards = cardShower(root, go);
  root.stop = cards.stop;
  // Another table begins unsorted and at its top.
  const kind = data.columns.map((column) => column.name).join();
  if (root.sorted && root.sorted.kind !== kind) { root.sorted = null; }
  const sort = root.sorted;

  const drawActions = (cell, row) => {
    data.actions.forEach((action) => {
      const button = cardPart("button", row.pressed === action.name ? "pressed" : "", action.title);
      button.setAttribute("aria-label", `${action.help} ${row.named}`);
      button.setAttribute("aria-pressed", String(row.pressed === action.name));
      button.addEventListener("click", (event) => {
        event.stopPropagation();
        setTriggerValue("acted", { action: action.name, key: row.key });
      });
      cell.append(button);
    });
  };

  const addressOf = (key) => {
    const card = data.cards[key];
    return cardAddress("latents", data.places[key]
      || (card ? { run: card.run, latent: card.latent } : {}));
  };

  const drawCell = (column, row) => {
    const cell = cardPart("td", column.kind);
    const value = row[column.name];
    if (column.width) { cell.style.maxWidth = `${column.width}px`; }
    if (column.kind === "actions") {
      drawActions(cell, row);
    } else if (column.kind === "number") {
      cell.textContent = row.texts[column.name];
    } else if (column.kind === "latent") {
      const key = row[column.key || "key"];
      if (value === null || value === undefined || value === "") {
        cell.textContent = "–";
      } else {
        cell.append(cardLink(String(value), addressOf(key), () => go("open", key)));
        // Another latent than the row's has its own card.
        if (key !== row.key) { cards.attach(cell, data.cards[key], "", key, true); }
      }
    } else {
      cell.textContent = value ?? "";
      if (column.width) { cell.title = cell.textContent; }
    }
    return cell;
  };

  // Text was selected in it, to be copied: no click.
  const isSelected = (line) => {
    const around = line.getRootNode();
    const selection = (around.getSelection ? around : document).getSelection();
    return Boolean(String(selection)) && line.contains(selection.anchorNode);
  };

  const drawRow = (row) => {
    const isChosen = Boolean(data.chosen) && row.key === data.chosen;
    const line = cardPart("tr", [isChosen ? "chosen" : "", row.pale ? "pale" : ""].join(" ").trim());
    line.tabIndex = 0;
    if (isChosen) { line.setAttribute("aria-current", "true"); }
    data.columns.forEach((column) => line.append(drawCell(column, row)));
    const open = () => { cards.hide(); go("row", row.key); };
    line.addEventListener("click", () => { if (!isSelected(line)) { open(); } });
    line.addEventListener("keydown", (event) => {
      if (event.target === line && event.key === "Enter") { open(); }
    });
    // Who presses a button looks at what it does.
    const parts = [...line.children].filter((cell) => !cell.classList.contains("actions"));
    // What is open is seen whole.
    if (!isChosen) { cards.attach(line, data.cards[row.key], "", row.key, true, parts); }
    return line;
  };

  const inOrder = () => {
    if (!root.sorted) { return data.rows; }
    const { name, down } = root.sorted;
    const isLess = (a, b) => (typeof a === "number" ? a - b : String(a).localeCompare(String(b)));
    return [...data.rows].sort((a, b) => {
      const [one, other] = [a[name] ?? null, b[name] ?? null];
      if (one === null || other === null) { return (one === null) - (other === null); }
      return down ? isLess(other, one) : isLess(one, other);
    });
  };

  const table = cardPart("table", "");
  const head = cardPart("tr", "");
  const body = cardPart("tbody", "");
  const marks = new Map();
  const fill = () => {
    body.replaceChildren(...inOrder().map(drawRow));
    marks.forEach((cell, column) => {
      const isIt = root.sorted && root.sorted.name === column.name;
      cell.textContent = column.title + (isIt ? (root.sorted.down ? " ↓" : " ↑") : "");
    });
  };
  data.columns.forEach((column) => {
    const cell = cardPart("th", column.kind, column.title);
    if (column.help) { cell.title = column.help; }
    if (column.kind !== "actions") {
      marks.set(column, cell);
      cell.tabIndex = 0;
      const turn = () => {
        const before = root.sorted && root.sorted.name === column.name ? root.sorted : null;
        const first = column.kind === "number";
        root.sorted = before && before.down !== first ? null
          : { kind, name: column.name, down: before ? !before.down : first };
        fill();
      };
      cell.addEventListener("click", turn);
      cell.addEventListener("keydown", (event) => { if (event.key === "Enter") { turn(); } });
    }
    head.append(cell);
  });
  fill();
  const top = cardPart("thead", "");
  top.append(head);
  table.append(top, body);
  root.prepend(table);
  if (!sort && root.drawn !== data.of) { root.scrollTop = 0; }
  root.drawn = data.of;
  const open = body.querySelector(".chosen");
  if (open) { // in sight within the table, which must not move the page
    const [first, last] = [open.offsetTop - top.offsetHeight, open.offsetTop + open.offsetHeight];
    const seen = root.scrollTop + root.clientHeight;
    if (first < root.scrollTop || last > seen) { root.scrollTop = first; }
  }
  return root.stop;
}

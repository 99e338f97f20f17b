// Rows of coloured tokens. All text arrives as data and is drawn with textContent.
//
// data.rows: [{chip, title, from, to, signed, twin, opens, tokens: [{text, before, hover, value, boxed,
//     dim, mark}]}]
//   what is empty, zero or false of a token may be missing.
//   value in [-1, 1] gives hue (sign) and strength; from/to: the tokens of the short view.
//   opens: has a button that sets the trigger `opened` to the row's number in data.rows.
//   signed: negative values are underlined; twin: hidden until the button below is pressed.
// data.histogram: name of a histogram on the page; a token's mark is a line in it at that x.
//   dim: is hatched and can't be locked.
// data.clickable: a click on a token sets the state `locked` to its number, a second frees it, and
//   the arrow keys go from one to the next.
// data.locked: the token that is locked.
// data.jumps: {title, help, tokens: [[number, text, value]]}, drawn as buttons above the rows; a click
//   locks the token, as one on the token itself.
// data.lights: [{latent, name, hover, tokens: [[number, value, coefficient]]}], drawn as buttons
//   below the rows; hover shows the values on the tokens, a click sets the state `lit`.
//   Its card in data.cards, by latent, is shown on hover; its links set the trigger `named`.
// data.lit: the latent that is locked.
export default function (component) {
  const { data, parentElement, setStateValue, setTriggerValue } = component;
  const root = parentElement.querySelector(".strip");
  root.replaceChildren();
  const tip = make("div", "tip");
  const lights = data.lights || [];
  const spans = [];
  const jumps = [];
  let stopCards = () => {};
  root.stop?.(); // of the data before: Streamlit ends that one only with the page
  // What was locked here counts until the server has heard of all of it: keys can be faster.
  const told = data.locked ?? null;
  const sent = root.sent || [];
  const isBehind = sent.length && sent.at(-1) !== told && sent.includes(told);
  if (!isBehind) { root.sent = []; }
  let locked = isBehind ? sent.at(-1) : told;

  function make(kind, name, text) {
    const element = document.createElement(kind);
    element.className = name;
    if (text) { element.textContent = text; }
    return element;
  }

  const paint = (span, value, signed) => {
    const strength = Math.min(1, Math.abs(value || 0));
    const hue = value > 0 ? "47, 111, 143" : "200, 90, 20";
    span.style.backgroundColor = strength > 0
      ? `rgba(${hue}, ${(0.06 + 0.6 * strength).toFixed(3)})` : "";
    span.classList.toggle("negative", Boolean(signed) && value < 0);
  };

  const showTip = (element, text) => {
    tip.textContent = text;
    tip.style.display = "block";
    const box = root.getBoundingClientRect();
    const at = element.getBoundingClientRect();
    const left = Math.min(at.left - box.left, Math.max(0, box.width - tip.offsetWidth));
    tip.style.left = `${left}px`;
    tip.style.top = `${at.top - box.top - tip.offsetHeight - 4}px`;
  };

  // A line in the histogram at a value of its x axis, or none.
  const drawMark = (value) => {
    const detail = { histogram: data.histogram, value };
    document.dispatchEvent(new CustomEvent("itda-mark", { detail }));
  };

  const tell = (element, text) => {
    const hide = () => { tip.style.display = "none"; };
    element.addEventListener("mouseenter", () => showTip(element, text));
    element.addEventListener("focus", () => showTip(element, text));
    element.addEventListener("mouseleave", hide);
    element.addEventListener("blur", hide);
    element.setAttribute("aria-label", text);
  };

  const makePressable = (element, press) => {
    element.tabIndex = 0;
    element.setAttribute("role", "button");
    element.addEventListener("click", press);
    element.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); press(); }
    });
  };

  const drawToken = (token, index, signed) => {
    const span = make("span", "token", token.text);
    paint(span, token.value || 0, signed);
    span.classList.toggle("part", token.text === "");
    span.classList.toggle("boxed", Boolean(token.boxed));
    span.classList.toggle("dim", Boolean(token.dim));
    if (token.hover) { tell(span, token.hover); }
    if (token.mark && data.histogram) {
      span.addEventListener("mouseenter", () => drawMark(token.mark));
      span.addEventListener("mouseleave", () => drawMark(0));
    }
    if (data.clickable && !token.dim) {
      span.classList.add("clickable");
      markLocked(span, index);
      makePressable(span, () => lock(index === locked ? null : index));
    }
    return span;
  };

  const markLocked = (element, index) => {
    element.classList.toggle("locked", index === locked);
    element.setAttribute("aria-pressed", String(index === locked));
  };

  const lock = (index) => {
    root.sent = root.sent.length ? [...root.sent, index] : [locked, index];
    locked = index;
    if (data.clickable) { spans.forEach(([span], number) => markLocked(span, number)); }
    jumps.forEach(([button, number]) => markLocked(button, number));
    setStateValue("locked", index);
  };

  // To the next token that can be locked, and no further than to the last.
  const go = (step) => {
    const free = spans.flatMap(([, token], index) => (token.dim ? [] : [index]));
    const at = free.indexOf(locked);
    const next = at < 0 ? free.at(step > 0 ? 0 : -1) : free[at + step];
    if (next === undefined) { return; }
    lock(next);
    spans[next][0].scrollIntoView({ block: "nearest" });
  };

  const drawRow = (row) => {
    const line = make("div", "row");
    if (row.chip) { line.append(make("span", "chip", row.chip)); }
    const text = make("div", "text");
    text.dir = "auto";
    const short = row.to !== undefined;
    const fill = (whole) => {
      text.replaceChildren();
      const from = whole || !short ? 0 : row.from;
      const to = whole || !short ? row.tokens.length : row.to;
      if (from > 0) { text.append("…"); }
      for (let index = from; index < to; index += 1) {
        const token = row.tokens[index];
        if (token.before) { text.append(token.before); }
        const span = drawToken(token, index, row.signed);
        spans[index] = [span, token, row.signed];
        text.append(span);
      }
      if (to < row.tokens.length) {
        text.append("…");
      } else if (row.after) {
        text.append(make("span", "dim", row.after));
      }
    };
    fill(false);
    line.append(text);
    if (row.title) { line.append(make("span", "title", row.title)); }
    const buttons = make("span", "buttons");
    if (short && row.tokens.length > row.to - row.from) {
      let whole = false;
      const more = make("button", "more", "more");
      more.addEventListener("click", () => {
        whole = !whole;
        fill(whole);
        more.textContent = whole ? "less" : "more";
      });
      buttons.append(more);
    }
    if (row.opens) {
      const open = make("button", "more", "decompose");
      open.addEventListener("click", () => setTriggerValue("opened", data.rows.indexOf(row)));
      buttons.append(open);
    }
    if (buttons.childElementCount) { line.append(buttons); }
    return line;
  };

  const drawRows = () => {
    const twins = data.rows.filter((row) => row.twin);
    data.rows.filter((row) => !row.twin).forEach((row) => root.append(drawRow(row)));
    if (!twins.length) { return; }
    const folded = twins.map(drawRow);
    folded.forEach((line) => { line.hidden = true; });
    const count = twins.length === 1 ? "1 duplicate" : `${twins.length} duplicates`;
    const button = make("button", "more", `show ${count}`);
    button.addEventListener("click", () => {
      const hide = !folded[0].hidden;
      folded.forEach((line) => { line.hidden = hide; });
      button.textContent = `${hide ? "show" : "hide"} ${count}`;
    });
    root.append(button, ...folded);
  };

  // Buttons that lock a token each; under the mouse they show where it is.
  const drawJumps = ({ title, help, tokens }) => {
    const line = make("div", "jumps");
    const name = make("span", "chip", title);
    tell(name, help);
    line.append(name);
    tokens.forEach(([index, text, value]) => {
      const button = make("span", "jump", `${text} `);
      button.append(make("span", "count", value));
      const point = (isOn) => spans[index]?.[0].classList.toggle("pointed", isOn);
      ["mouseenter", "focus"].forEach((kind) => button.addEventListener(kind, () => point(true)));
      ["mouseleave", "blur"].forEach((kind) => button.addEventListener(kind, () => point(false)));
      markLocked(button, index);
      makePressable(button, () => {
        lock(index === locked ? null : index);
        spans[index][0].scrollIntoView({ block: "nearest" });
      });
      jumps.push([button, index]);
      line.append(button);
    });
    root.append(line);
  };

  // The values of one latent on its tokens, or of none: then each token's own.
  const shine = (one) => {
    const values = new Map(one ? one.tokens.map(([index, value]) => [index, value]) : []);
    spans.forEach(([span, token, signed], index) => {
      paint(span, one ? values.get(index) || 0 : token.value, one ? true : signed);
    });
  };

  const drawLights = () => {
    const cards = cardShower(root, (what, latent) => setTriggerValue("named", { what, latent }));
    stopCards = cards.stop;
    const line = make("div", "lights");
    const lit = () => lights.find((one) => one.latent === data.lit);
    lights.forEach((one) => {
      const button = make("span", "light", `${one.name} `);
      button.append(make("span", "count", `×${one.tokens.length}`));
      button.classList.toggle("locked", one.latent === data.lit);
      button.setAttribute("aria-pressed", String(one.latent === data.lit));
      const sizes = one.tokens.slice(0, 8).map(([index, , size]) => `${index}: ${size}`);
      const more = one.tokens.length > 8 ? ", …" : "";
      const said = `${one.hover}\ntokens ${sizes.join(", ")}${more}`;
      button.setAttribute("aria-label", said);
      cards.attach(button, (data.cards || {})[one.latent], said, one.latent);
      ["mouseenter", "focus"].forEach((name) => button.addEventListener(name, () => shine(one)));
      ["mouseleave", "blur"].forEach((name) => button.addEventListener(name, () => shine(lit())));
      makePressable(button, () => setStateValue("lit", one.latent === data.lit ? null : one.latent));
      line.append(button);
    });
    root.append(line);
    if (lit()) { shine(lit()); }
  };

  if (data.histogram) { drawMark(0); } // of the token that was under the mouse before
  if (data.jumps) { drawJumps(data.jumps); }
  drawRows();
  if (lights.length) { drawLights(); }
  root.append(tip);

  const isTaken = () => {
    const element = document.activeElement;
    return element && (element.isContentEditable || element.closest("input, textarea, select, "
      + "[role=slider], [role=tab], [role=radio], [role=grid], [data-testid=stDataFrame]"));
  };
  const listen = (event) => {
    const isPlain = !event.ctrlKey && !event.metaKey && !event.altKey && !event.shiftKey;
    if (!isPlain || isTaken()) { return; }
    if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      event.preventDefault();
      go(event.key === "ArrowRight" ? 1 : -1);
    } else if (event.key === "Escape") {
      if (locked !== null) { lock(null); }
      if (data.lit !== null && data.lit !== undefined) { setStateValue("lit", null); }
    }
  };
  if (data.clickable) { document.addEventListener("keydown", listen); }
  root.stop = () => {
    document.removeEventListener("keydown", listen);
    stopCards();
  };
  return root.stop;
}

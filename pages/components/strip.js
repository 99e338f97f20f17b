// Rows of coloured tokens. All text arrives as data and is drawn with textContent.
//
// data.rows: [{chip, title, from, to, tokens: [{text, before, hover, value, boxed, dim}]}]
//   what is empty, zero or false of a token may be missing.
//   value in [-1, 1] gives hue (sign) and strength; from/to: the tokens of the short view.
// data.clickable: a click on a token sets the state `locked` to its number, a second frees it.
// data.locked: the token that is locked.
export default function (component) {
  const { data, parentElement, setStateValue } = component;
  const root = parentElement.querySelector(".strip");
  root.replaceChildren();
  const tip = document.createElement("div");
  tip.className = "tip";

  const toggle = (index) => setStateValue("locked", index === data.locked ? null : index);

  const showTip = (element, text) => {
    tip.textContent = text;
    tip.style.display = "block";
    const box = root.getBoundingClientRect();
    const at = element.getBoundingClientRect();
    const left = Math.min(at.left - box.left, Math.max(0, box.width - tip.offsetWidth));
    tip.style.left = `${left}px`;
    tip.style.top = `${at.top - box.top - tip.offsetHeight - 4}px`;
  };

  const drawToken = (token, index) => {
    const span = document.createElement("span");
    span.className = "token";
    span.textContent = token.text;
    const strength = Math.min(1, Math.abs(token.value || 0));
    if (strength > 0) {
      const hue = token.value > 0 ? "47, 111, 143" : "200, 90, 20";
      span.style.backgroundColor = `rgba(${hue}, ${(0.08 + 0.5 * strength).toFixed(3)})`;
    }
    span.classList.toggle("part", token.text === "");
    span.classList.toggle("boxed", Boolean(token.boxed));
    span.classList.toggle("dim", Boolean(token.dim));
    if (token.hover) {
      span.addEventListener("mouseenter", () => showTip(span, token.hover));
      span.addEventListener("mouseleave", () => { tip.style.display = "none"; });
      span.setAttribute("aria-label", token.hover);
    }
    if (data.clickable && !token.dim) {
      span.classList.add("clickable");
      span.classList.toggle("locked", index === data.locked);
      span.tabIndex = 0;
      span.setAttribute("role", "button");
      span.addEventListener("click", () => toggle(index));
      span.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); toggle(index); }
        if (event.key === "Escape") { setStateValue("locked", null); }
      });
    }
    return span;
  };

  const drawRow = (row) => {
    const line = document.createElement("div");
    line.className = "row";
    if (row.chip) {
      const chip = document.createElement("span");
      chip.className = "chip";
      chip.textContent = row.chip;
      line.append(chip);
    }
    const text = document.createElement("div");
    text.className = "text";
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
        text.append(drawToken(token, index));
      }
      if (to < row.tokens.length) {
        text.append("…");
      } else if (row.after) {
        const rest = document.createElement("span");
        rest.className = "dim";
        rest.textContent = row.after;
        text.append(rest);
      }
    };
    fill(false);
    line.append(text);
    if (row.title) {
      const title = document.createElement("span");
      title.className = "title";
      title.textContent = row.title;
      line.append(title);
    }
    if (short && row.tokens.length > row.to - row.from) {
      const more = document.createElement("button");
      more.className = "more";
      let whole = false;
      const label = () => { more.textContent = whole ? "less" : "more"; };
      more.addEventListener("click", () => { whole = !whole; fill(whole); label(); });
      label();
      line.append(more);
    }
    return line;
  };

  data.rows.forEach((row) => root.append(drawRow(row)));
  root.append(tip);
}

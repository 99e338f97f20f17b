// The short card of a latent, for the components that name latents. All text is drawn with
// textContent.
//
// card: {latent, run, title, source, of, label, score: [sentence], used, strong,
//   uses: [{coefficient, text}], histogram: {low, high, positive, negative, strong}}
const CARD_DELAY = 120;
const CARD_PALE = 0.5; // of filler: seen on a dark page too
const CARD_GAP = 8;
const CARD_BESIDE = 300; // pixels on the right of a component that are enough for a card
const CARD_LEAST = 150; // pixels in which a card, cut at its end, still says what it is about

function cardPart(kind, name, text) {
  const element = document.createElement(kind);
  element.className = name;
  if (text) { element.textContent = text; }
  return element;
}

// Bars of all uses; where there is a threshold, those below it are pale.
function cardHistogram(histogram) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const counts = histogram.positive.map((count, bin) => count + histogram.negative[bin]);
  // Filler is many times as frequent as strong uses: the square root shows both.
  const tallest = Math.sqrt(Math.max(...counts, 1));
  svg.setAttribute("viewBox", `0 0 ${10 * counts.length} 44`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const draw = (bin, count, colour, opacity) => {
    if (!count) { return; }
    const height = 44 * Math.sqrt(count) / tallest;
    const bar = document.createElementNS(space, "rect");
    const values = { x: 10 * bin, y: 44 - height, width: 9, height, fill: colour, opacity };
    Object.entries(values).forEach(([name, value]) => bar.setAttribute(name, value));
    svg.append(bar);
  };
  counts.forEach((count, bin) => {
    const middle = histogram.low + (bin + 0.5) * (histogram.high - histogram.low) / counts.length;
    const colour = middle < 0 ? "#c85a14" : "#2f8fb8";
    const strong = histogram.strong ? histogram.strong[bin] : count;
    draw(bin, count, colour, histogram.strong ? CARD_PALE : 1);
    if (histogram.strong) { draw(bin, strong, colour, 1); }
  });
  return svg;
}

function cardAddress(page, query) {
  return `${page}?${new URLSearchParams(query).toString()}`;
}

// A link that goes where `go` says without loading the page anew; with a key held, the browser's own.
function cardLink(text, address, go) {
  const link = cardPart("a", "", text);
  link.href = address;
  link.addEventListener("click", (event) => {
    event.stopPropagation();
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) { return; }
    event.preventDefault();
    go();
  });
  return link;
}

function fillCard(holder, card, said, go) {
  const shortNumber = (value) => Number(value.toPrecision(3)).toString().replace("-", "−");
  holder.replaceChildren();
  if (said) { holder.append(cardPart("div", "said", said)); }
  if (!card) { return; }
  const links = cardPart("span", "links"); // at its head: its end may be cut
  const of = { run: card.run, latent: card.latent };
  links.append(
    cardLink("Open", cardAddress("latents", of), () => go("open")),
    cardLink("Steer with it",
      cardAddress("decompose", { run: card.run, view: "steer", steer: card.latent }),
      () => go("steer")),
  );
  const head = cardPart("div", "head");
  head.append(cardPart("span", "name", card.title), links);
  holder.append(head);
  if (card.label) { holder.append(cardPart("div", "label", card.label)); }
  holder.append(cardPart("div", "quote", card.source));
  holder.append(cardPart("div", "about", `latent ${card.latent} · ${card.of} · ${card.used}`));
  card.score.forEach((sentence) => holder.append(cardPart("div", "sentence", sentence)));
  if (card.strong) { holder.append(cardPart("div", "about", card.strong)); }
  card.uses.forEach((use) => {
    const line = cardPart("div", "use");
    line.append(cardPart("span", "size", use.coefficient), cardPart("span", "", use.text));
    holder.append(line);
  });
  if (card.uses.length) {
    holder.append(cardHistogram(card.histogram));
    const { low, high } = card.histogram;
    holder.append(cardPart("div", "about",
      `coefficients from ${shortNumber(low)} to ${shortNumber(high)}, height √count`));
  }
}

// Where a card of a height stands beside an element: [its top, the height that it may have]. Best
// whole, then cut; below it, then between it and its table's head, then above that head.
function cardPlace(anchor, height) {
  const at = anchor.getBoundingClientRect();
  const head = anchor.closest("table")?.tHead?.getBoundingClientRect() ?? { top: at.top, bottom: 0 };
  const under = window.innerHeight - at.bottom - 10;
  const between = at.top - 10 - Math.max(0, head.bottom);
  const above = Math.min(at.top, head.top) - 10;
  const below = [at.bottom + 6, under];
  const over = (top, room) => [Math.max(4, top - 6 - Math.min(height, room)), room];
  if (height <= under) { return below; }
  if (height <= between) { return over(at.top, between); }
  if (under >= CARD_LEAST) { return below; }
  if (between >= CARD_LEAST) { return over(at.top, between); }
  return under >= above ? below : over(above + 10, above);
}

// One card for a component, in the browser's top layer, so that nothing cuts it. Returns what makes
// an element show it. go(what, key): follows one of its links; key: as it was attached with.
function cardShower(root, go) {
  const holder = cardPart("div", "tip card");
  holder.popover = "manual";
  root.append(holder);
  let timer = null;
  const later = (act, wait) => { clearTimeout(timer); timer = setTimeout(act, wait); };
  const hide = () => { clearTimeout(timer); if (holder.isConnected) { holder.hidePopover(); } };
  // Shows it no wider than so, and returns its size.
  const open = (widest) => {
    holder.style.left = "0px";
    holder.style.maxWidth = `min(30rem, 92vw, ${widest}px)`;
    holder.style.maxHeight = "";
    document.dispatchEvent(new CustomEvent("itda-card", { detail: holder }));
    holder.showPopover();
    return [holder.offsetWidth, holder.offsetHeight];
  };
  const place = (left, top, room) => {
    holder.style.left = `${Math.max(4, left)}px`;
    holder.style.top = `${top}px`;
    holder.style.maxHeight = `${room}px`;
  };
  // On the right of the component, where all of its rows stay free; on its left is what one reads.
  const openBeside = (at, column, room) => {
    const [, height] = open(room);
    const top = Math.max(4, Math.min(at.top, window.innerHeight - height - 4));
    place(column.right + CARD_GAP, top, window.innerHeight - 8);
  };
  // Over it on its right: the beginnings of the other rows stay free.
  const openOver = (anchor, column) => {
    const right = Math.min(column.right, window.innerWidth - 4);
    const [width, height] = open(0.75 * (right - Math.max(column.left, 0)));
    place(right - width, ...cardPlace(anchor, height));
  };
  const show = (anchor, card, said, key, within) => {
    if (!holder.isConnected || !anchor.isConnected) { return; }
    fillCard(holder, card, said, (what) => { hide(); go(what, key); });
    const at = anchor.getBoundingClientRect();
    const column = root.getBoundingClientRect();
    const room = window.innerWidth - column.right - 2 * CARD_GAP;
    if (within && room >= CARD_BESIDE) {
      openBeside(at, column, room);
    } else if (within) {
      openOver(anchor, column);
    } else {
      const [width, height] = open(window.innerWidth);
      place(Math.min(at.left, window.innerWidth - width - 4), ...cardPlace(anchor, height));
    }
  };
  holder.addEventListener("mouseenter", () => clearTimeout(timer));
  holder.addEventListener("mouseleave", () => later(hide, CARD_DELAY));
  holder.addEventListener("wheel", hide, { passive: true }); // what lies below it is scrolled
  window.addEventListener("scroll", hide, { capture: true, passive: true });
  const giveWay = (event) => { if (event.detail !== holder) { hide(); } }; // one on the page
  document.addEventListener("itda-card", giveWay);
  // within: it stands on the right of the component, or over its right part where there is no room.
  // parts: of the element, over which the mouse brings it.
  const attach = (element, card, said, key, within = false, parts = [element]) => {
    if (!card && !said) { return; }
    const tell = () => show(element, card, said, key, within);
    parts.forEach((part) => {
      part.addEventListener("mouseenter", () => later(tell, CARD_DELAY));
      part.addEventListener("mouseleave", () => later(hide, 2 * CARD_DELAY));
    });
    element.addEventListener("focus", () => { if (element.matches(":focus-visible")) { tell(); } });
    element.addEventListener("blur", () => later(hide, CARD_DELAY));
    element.addEventListener("keydown", (event) => { if (event.key === "Escape") { hide(); } });
  };
  const stop = () => {
    hide();
    window.removeEventListener("scroll", hide, { capture: true });
    document.removeEventListener("itda-card", giveWay);
  };
  return { attach, hide, stop };
}

// A histogram of coefficients: bars, two axes, a tip for each bar, and its picture as a file.
//
// data.low, data.high: the least and the largest edge of the bins; data.positive, data.negative:
//   how many coefficients are in each; data.strong: how many of them are strong uses, the others
//   are drawn pale, or null where there is no threshold; data.marked: where a line stands, with the
//   text data.told; data.far: what is said of those that no bin holds, or "".
// data.file, data.picture: the name of its picture, and "SVG" or "PNG".
// An event "itda-mark" on the document with detail {histogram: data.name, value} draws a line at
//   that coefficient, one without a value takes it away.
const SPACE = "http://www.w3.org/2000/svg";
const BLUE = "#2f6f8f", ORANGE = "#c85a14", GREY = "#9aa5ab";
const PALE = 0.5;
const HEIGHT = 190, LEFT = 56, RIGHT = 12, BOTTOM = 36;

// A step of 1, 2 or 5 times a power of ten that makes at most `most` parts of a length.
const niceStep = (length, most) => {
  const power = 10 ** Math.floor(Math.log10(length / most));
  return [1, 2, 5, 10].map((one) => one * power).find((one) => length / one <= most);
};

const short = (value) => String(Number(value.toPrecision(3)));
const counted = (count) => `${count.toLocaleString("en-US")} ${count === 1 ? "token" : "tokens"}`;

const download = (blob, name) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};

export default function (component) {
  const { data, parentElement } = component;
  const root = parentElement.querySelector(".histogram");
  const bins = data.positive.length;
  const top = data.told ? 30 : 18;
  const highest = Math.max(1, ...data.positive, ...data.negative);
  const tip = document.createElement("div");
  tip.className = "tip";
  let svg, width, mark, marked;

  const make = (kind, attributes, text) => {
    const element = document.createElementNS(SPACE, kind);
    for (const [name, value] of Object.entries(attributes)) { element.setAttribute(name, value); }
    if (text) { element.textContent = text; }
    svg.append(element);
    return element;
  };
  const x = (value) => { // what is far out is at the end
    const within = Math.min(data.high, Math.max(data.low, value));
    return LEFT + (width - LEFT - RIGHT) * (within - data.low) / (data.high - data.low);
  };
  const y = (count) => HEIGHT - BOTTOM - (HEIGHT - BOTTOM - top) * count / (1.05 * highest);

  const drawAxes = () => {
    const grid = { stroke: "currentColor", "stroke-opacity": 0.15 };
    const write = { fill: "currentColor", "font-size": 12 };
    const across = niceStep(data.high - data.low, Math.max(2, (width - LEFT) / 70));
    for (let n = Math.ceil(data.low / across); n * across <= data.high; n += 1) {
      const at = x(n * across);
      make("line", { x1: at, x2: at, y1: top, y2: y(0), ...grid });
      make("text", { x: at, y: y(0) + 15, "text-anchor": "middle", ...write }, short(n * across));
    }
    const up = Math.max(1, niceStep(1.05 * highest, 4));
    for (let count = 0; count <= 1.05 * highest; count += up) {
      make("line", { x1: LEFT, x2: width - RIGHT, y1: y(count), y2: y(count), ...grid });
      const text = count.toLocaleString("en-US");
      make("text", { x: LEFT - 5, y: y(count) + 4, "text-anchor": "end", ...write }, text);
    }
    const middle = (LEFT + width - RIGHT) / 2;
    const name = data.far ? `coefficient (${data.far})` : "coefficient";
    make("text", { x: middle, y: HEIGHT - 4, "text-anchor": "middle", ...write }, name);
    const turned = `translate(11 ${(top + HEIGHT - BOTTOM) / 2}) rotate(-90)`;
    make("text", { transform: turned, "text-anchor": "middle", ...write }, "tokens");
  };

  const drawLegend = () => {
    const kinds = data.strong
      ? [["strong", BLUE, 1], ["filler", BLUE, PALE], ["negative", ORANGE, PALE]]
      : [["positive", BLUE, 1], ["negative", ORANGE, 1]];
    let at = LEFT;
    for (const [name, fill, opacity] of kinds) {
      make("rect", { x: at, y: 3, width: 9, height: 9, fill, "fill-opacity": opacity });
      make("text", { x: at + 13, y: 12, fill: "currentColor", "font-size": 12 }, name);
      at += 30 + 6.2 * name.length;
    }
  };

  const drawBars = () => {
    const wide = (width - LEFT - RIGHT) / bins;
    const pale = data.strong ? { "fill-opacity": PALE } : {};
    const kinds = [[data.positive, BLUE, pale], [data.negative, ORANGE, pale],
      [data.strong || [], BLUE, {}]]; // the strong ones stand before the others
    for (const [counts, fill, look] of kinds) {
      counts.forEach((count, bin) => {
        if (!count) { return; }
        const box = { x: LEFT + (bin + 0.015) * wide, width: 0.97 * wide };
        const size = { y: y(count), height: y(0) - y(count) };
        make("rect", { ...box, ...size, fill, ...look, class: "bar" });
      });
    }
    for (let bin = 0; bin < bins; bin += 1) { // all of its height answers the mouse
      const count = data.positive[bin] + data.negative[bin];
      const strong = data.strong ? `, ${data.strong[bin].toLocaleString("en-US")} strong` : "";
      const middle = data.low + (bin + 0.5) * (data.high - data.low) / bins;
      if (!count) { continue; }
      const box = { x: LEFT + bin * wide, y: top, width: wide, height: HEIGHT - BOTTOM - top };
      const touched = make("rect", { ...box, fill: "transparent" });
      touched.addEventListener("mouseenter", () => {
        tip.textContent = `${counted(count)} near ${short(middle)}${strong}`;
        tip.style.display = "block";
        tip.style.left = `${Math.min(box.x, Math.max(0, width - tip.offsetWidth))}px`;
        tip.style.top = `${Math.max(0, y(count) - tip.offsetHeight - 4)}px`;
      });
      touched.addEventListener("mouseleave", () => { tip.style.display = "none"; });
    }
  };

  const drawLine = (value, attributes) => {
    const at = x(value);
    return make("line", { x1: at, x2: at, y1: top, y2: y(0), "stroke-width": 2, ...attributes });
  };

  const draw = () => {
    width = root.clientWidth;
    if (width <= LEFT + RIGHT) { return; } // not on the screen
    svg = document.createElementNS(SPACE, "svg");
    svg.setAttribute("role", "img");
    const total = [...data.positive, ...data.negative].reduce((sum, count) => sum + count, 0);
    svg.setAttribute("aria-label",
      `Histogram: ${counted(total)} with coefficients from ${short(data.low)} to ${short(data.high)}`
      + (data.far ? `, ${data.far}` : "") + (data.told ? `; ${data.told}` : ""));
    drawAxes();
    drawLegend();
    drawBars();
    if (data.told) {
      drawLine(data.marked, { stroke: GREY, "stroke-dasharray": "3 3" });
      const isRight = x(data.marked) > width / 2;
      const place = { x: x(data.marked) + (isRight ? -4 : 4), y: 26, fill: "currentColor" };
      const anchor = isRight ? "end" : "start";
      make("text", { ...place, "font-size": 12, "text-anchor": anchor, class: "told" }, data.told);
    }
    drawMark();
    root.replaceChildren(svg, camera, tip);
  };

  const drawMark = () => {
    mark?.remove();
    mark = marked ? drawLine(marked, { stroke: "currentColor", class: "token-mark" }) : null;
  };

  const setMark = (event) => {
    if (event.detail.histogram !== data.name) { return; }
    marked = event.detail.value;
    if (svg) { drawMark(); } // else with the first drawing, once it is on the screen
  };

  // The picture stands alone: with the colours, the font and the size that the page gives it.
  const picture = () => {
    const copy = svg.cloneNode(true);
    const look = getComputedStyle(root);
    const paper = getComputedStyle(document.querySelector(".stApp") || root).backgroundColor;
    const size = { xmlns: SPACE, width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}` };
    for (const [name, value] of Object.entries(size)) { copy.setAttribute(name, value); }
    Object.assign(copy.style, {
      color: look.color, fontFamily: look.fontFamily, backgroundColor: paper,
    });
    return new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" });
  };

  const save = async () => {
    const blob = picture();
    if (data.picture !== "PNG") { download(blob, `${data.file}.svg`); return; }
    const image = new Image();
    const address = URL.createObjectURL(blob);
    image.src = address;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [2 * width, 2 * HEIGHT];
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    URL.revokeObjectURL(address);
    canvas.toBlob((png) => download(png, `${data.file}.png`));
  };

  const camera = document.createElement("button");
  camera.className = "camera";
  camera.textContent = `save as ${data.picture}`;
  camera.setAttribute("aria-label", `Save the histogram as ${data.picture}`);
  camera.addEventListener("click", save);

  draw();
  const watcher = new ResizeObserver(() => { if (root.clientWidth !== width) { draw(); } });
  watcher.observe(root);
  document.addEventListener("itda-mark", setMark);
  const stop = () => {
    watcher.disconnect();
    document.removeEventListener("itda-mark", setMark);
  };
  root.stop?.(); // of the latent before: Streamlit ends that one only with the page
  root.stop = stop;
  return stop;
}

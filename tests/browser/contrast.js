// The contrast of WCAG 2 between each text on the page and what lies behind it, those below `least`.
// What is switched off has to be told from its background, 2 to 1 (WCAG asks nothing of it).
// Left out: a slider's value, which stands above its handle and not on it, and text in the squares
// of a chart, whose colour is no background.
(least) => {
  const parse = (text) => {
    const numbers = (text.match(/[\d.]+/g) || [0, 0, 0, 0]).map(Number);
    const whole = text.startsWith("color(") ? 255 : 1;  // of color-mix: from 0 to 1
    const colour = numbers.slice(0, 3).map((number) => whole * number);
    return [...colour, numbers.length > 3 ? numbers[3] : 1];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[3] * top[i] + (1 - top[3]) * below[i]);
  const shine = (colour) => {
    const [r, g, b] = colour.map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const above = (element) => {
    const chain = [];
    let at = element;
    while (at) { chain.push(at); at = at.parentElement || at.getRootNode().host; }
    return chain;
  };
  const behind = (chain) => {
    const layers = chain.map((one) => parse(getComputedStyle(one).backgroundColor));
    const end = layers.findIndex((one) => one[3] === 1);
    return layers.slice(0, end + 1 || undefined).reduceRight(
      (below, one) => over(one, below), [255, 255, 255]);
  };
  const judge = (element) => {
    const chain = above(element);
    const style = getComputedStyle(element);
    const isDrawn = element instanceof SVGElement;
    const colour = parse(isDrawn ? style.fill : style.color);
    const opacity = chain.reduce((all, one) => all * Number(getComputedStyle(one).opacity), 1);
    const back = behind(chain);
    const text = over([...colour.slice(0, 3), colour[3] * opacity], back);
    const [low, high] = [shine(text), shine(back)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const left_out = ".stSlider, .scatterlayer, style, script";
  const switched_off = "[disabled], [aria-disabled=true]";
  const found = { judged: 0, switchedOff: 0, low: [] };
  const visit = (root) => root.querySelectorAll("*").forEach((one) => {
    if (one.shadowRoot) { visit(one.shadowRoot); }
    const writes = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!writes || one.closest(left_out) || !one.getBoundingClientRect().width
      || !one.checkVisibility({ visibilityProperty: true, opacityProperty: true })) { return; }
    const ratio = judge(one);
    const isOff = one.closest(switched_off) !== null;
    found.judged += 1;
    found.switchedOff += isOff;
    if (ratio < (isOff ? 2 : least)) { found.low.push([one.textContent.trim().slice(0, 40), ratio]); }
  });
  visit(document);
  return found;
}

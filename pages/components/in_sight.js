// Brings the place where it stands into the window, once for each act whose result stands there.
//
// data.of: whose result; data.act: the number of the act, 0 before the first.
const LOW = 0.6; // of the window's height, below which a result is not seen to come
const LATER = 500; // ms after which the rest of the result has come

const bring = (place) => {
  const { top } = place.getBoundingClientRect();
  if (top >= 0 && top < LOW * window.innerHeight) { return; }
  const isCalm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  place.scrollIntoView({ block: "center", behavior: isCalm ? "auto" : "smooth" });
};

export default function ({ data, parentElement }) {
  const brought = (window.itdaBrought = window.itdaBrought || {});
  if (!data.act || brought[data.of] === data.act) { return; }
  brought[data.of] = data.act;
  const place = parentElement.host || parentElement;
  requestAnimationFrame(() => bring(place));
  setTimeout(() => { if (place.isConnected) { bring(place); } }, LATER);
}

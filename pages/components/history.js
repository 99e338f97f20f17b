// One entry in the browser's history for each thing that is done. What a page adds to its address by
// itself takes the place of the entry there is: "back" would only bring it up again.
export default function () {
  if (window.itdaHistory) { return; }
  window.itdaHistory = true;
  const push = history.pushState.bind(history);
  const replace = history.replaceState.bind(history);
  let acted = false;
  ["pointerdown", "keydown"].forEach((name) =>
    window.addEventListener(name, () => { acted = true; }, true));
  window.addEventListener("popstate", () => { acted = false; }, true);
  history.pushState = (state, title, url) => {
    const isElsewhere = new URL(url || "", location.href).pathname !== location.pathname;
    (acted || isElsewhere ? push : replace)(state, title, url);
    acted = false;
  };
}

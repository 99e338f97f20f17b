// One entry in the browser's history for each thing that is done.
//
// Streamlit makes one for every parameter that a page writes into its address, also for those that
// the page adds by itself ("back" would only bring them up again), and for those that the next page
// writes while the address is still that of the last one.
export default function () {
  if (window.itdaHistory) { return; }
  window.itdaHistory = true;
  const push = history.pushState.bind(history);
  const replace = history.replaceState.bind(history);
  let acted = false; // since the page was opened
  let popped = false; // it was opened by "back" or "forward"
  let before = null; // the entry as it was before the page wrote into it, until it is known why
  let timer = 0;

  const restore = () => {
    clearTimeout(timer);
    if (before) { replace(before.state, "", before.url); }
    before = null;
  };
  const settle = () => {
    const [state, url, isStep] = [history.state, location.href, before?.acted];
    if (isStep) { restore(); push(state, "", url); }
    before = null;
  };
  const act = () => { settle(); acted = true; popped = false; };
  ["pointerdown", "keydown"].forEach((name) => window.addEventListener(name, act, true));
  window.addEventListener("popstate", () => {
    clearTimeout(timer);
    [acted, popped, before] = [false, true, null];
  }, true);

  history.pushState = (state, title, url) => {
    if (new URL(url || "", location.href).pathname !== location.pathname) {
      if (popped) { return; } // written before it was known which page is open
      restore();
      push(state, title, url);
    } else {
      before = before || { state: history.state, url: location.href, acted };
      replace(state, title, url);
      clearTimeout(timer);
      timer = setTimeout(settle, 400);
    }
    acted = false;
  };
}

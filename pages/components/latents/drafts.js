// What is typed into a field is kept as soon as the typing pauses, and before anything else that is
// clicked takes effect: a field that is taken away with its latent would take its text along.
//
// Streamlit sends a field's text on Enter (Ctrl+Enter where there are lines), which leaves the
// cursor where it is.
const PAUSE = 800; // milliseconds
let stop = () => {}; // of what listens now: Streamlit calls this anew with other data, and ends the
                     // one before only with the page

export default function (component) {
  stop();
  const { data } = component;
  let field = null; // that holds what was not sent yet
  let timer = 0;

  const send = () => {
    clearTimeout(timer);
    if (field?.isConnected) {
      const options = { key: "Enter", ctrlKey: field.tagName === "TEXTAREA", bubbles: true };
      field.dispatchEvent(new KeyboardEvent("keydown", options));
    }
    field = null;
  };
  const typed = (event) => {
    if (event.isComposing || !data.fields.includes(event.target.getAttribute("aria-label"))) {
      return;
    }
    if (field !== event.target) { send(); }
    field = event.target;
    clearTimeout(timer);
    timer = setTimeout(send, PAUSE);
  };
  const pressed = (event) => { if (field && event.target !== field) { send(); } };
  const listeners = { input: typed, compositionend: typed, pointerdown: pressed, focusin: pressed };
  for (const [name, listener] of Object.entries(listeners)) {
    document.addEventListener(name, listener, true);
  }
  window.addEventListener("pagehide", send);
  return stop = () => {
    for (const [name, listener] of Object.entries(listeners)) {
      document.removeEventListener(name, listener, true);
    }
    window.removeEventListener("pagehide", send);
    send(); // a rerun while the person types must not drop what waits for the pause
  };
}

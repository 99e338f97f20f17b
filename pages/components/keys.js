// "/" puts the cursor into the text field with the label data.search, unless one has it already.
export default function (component) {
  const { data } = component;
  const isWriting = (element) =>
    element && (element.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(element.tagName));
  const listen = (event) => {
    const isPlain = !event.ctrlKey && !event.metaKey && !event.altKey;
    if (event.key !== "/" || !isPlain || isWriting(document.activeElement)) { return; }
    const fields = [...document.querySelectorAll("input[aria-label]")];
    const field = fields.find((one) => one.getAttribute("aria-label") === data.search);
    if (field) { event.preventDefault(); field.focus(); field.select(); }
  };
  document.addEventListener("keydown", listen);
  return () => document.removeEventListener("keydown", listen);
}

// @ts-check
// Starts the page: charts, gallery, theme, keys and the address.

for (const plot of document.querySelectorAll("[data-figure] .plot")) enliven(/** @type {HTMLElement} */ (plot));

let waiting = false;
/** Draw what is in view again, once a frame. */
function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    for (const node of inView) node.show();
    detail.update?.();
  });
}
thresholdListeners.push(redraw);

const THEMES = ["auto", "light", "dark"];
const themeButton = document.getElementById("theme");

/** Light, dark, or as the system has it; remembered where the browser allows it. @param {string} theme */
function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  themeButton.textContent = `Theme: ${theme}`;
  try {
    localStorage.setItem("piebench-masks-theme", theme);
  } catch { /* a page that may store nothing starts anew each time */ }
}

let stored = null;
try {
  stored = localStorage.getItem("piebench-masks-theme");
} catch { /* as above */ }
setTheme(THEMES.includes(stored) ? stored : "auto");
themeButton.addEventListener("click", () => {
  setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]);
});

const help = /** @type {HTMLDialogElement} */ (document.getElementById("help"));
document.getElementById("help-button").addEventListener("click", () => help.showModal());
for (const dialog of [help, detail.dialog]) {
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside it
  });
}
detail.dialog.addEventListener("close", () => {
  const link = /** @type {HTMLElement} */ (cards.querySelector(`[data-index="${detail.index}"] .id`));
  detail.update = null;
  detail.dialog.replaceChildren();
  dropDetailSlider();
  if (location.hash.startsWith("#sample-")) history.pushState(null, "", "#gallery");
  link?.focus({ preventScroll: true });
  link?.closest(".card").scrollIntoView({ block: "nearest" });
});

/** @type {Record<string, () => void>} */
const KEYS = {
  "?": () => (help.open ? help.close() : help.showModal()),
  "/": () => {
    if (!detail.dialog.open) /** @type {HTMLElement} */ (document.querySelector('input[type="search"]')).focus();
  },
  ",": () => nudge(-1),
  ".": () => nudge(1),
  0: () => setStep(null),
  h: () => setView("heat"),
  m: () => setView("mask"),
  e: () => setView("edit"),
  ArrowLeft: () => (detail.dialog.open ? walkDetail(-1) : walkCards(-1)),
  ArrowRight: () => (detail.dialog.open ? walkDetail(1) : walkCards(1)),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { key } = event;
  const target = /** @type {HTMLInputElement} */ (event.target);
  if (target.matches('input[type="search"]')) {
    if (key === "Escape") {
      target.value = "";
      target.dispatchEvent(new Event("input"));
      target.blur();
    }
    return;
  }
  const moves = key.startsWith("Arrow") && target.closest("input, select, .scroll");
  const inGallery = detail.dialog.open || cards.contains(target) || target === document.body;
  if (moves || !(key in KEYS) || (help.open && key !== "?")) return;
  if (key.startsWith("Arrow") && !inGallery) return;
  event.preventDefault();
  KEYS[key]();
});

buildControls();
showLegend();
arrange();
addEventListener("hashchange", route);
addEventListener("popstate", route);
route();

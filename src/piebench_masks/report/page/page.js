// Starts the page: charts, gallery, theme, keys and the address.

for (const host of document.querySelectorAll("[data-figure]")) {
  for (const chart of report.figures[Number(host.dataset.figure)]) {
    const box = h("div", { class: "chart" });
    host.append(box);
    drawChart(box, chart);
  }
}

const THEMES = ["auto", "light", "dark"];
const themeButton = document.getElementById("theme");

/** Light, dark, or as the system has it; remembered where the browser allows it. */
function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  themeButton.textContent = `Theme: ${theme}`;
  try {
    localStorage.setItem("piebench-masks-theme", theme);
  } catch { /* a page that may store nothing starts anew each time */ }
}

let kept = null;
try {
  kept = localStorage.getItem("piebench-masks-theme");
} catch { /* as above */ }
setTheme(THEMES.includes(kept) ? kept : "auto");
themeButton.addEventListener("click", () => {
  setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]);
});

const help = document.getElementById("help");
document.getElementById("help-button").addEventListener("click", () => help.showModal());
for (const dialog of [help, detail.dialog]) {
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside it
  });
}
detail.dialog.addEventListener("close", () => {
  const link = cards.querySelector(`[data-index="${detail.index}"] .id`);
  detail.update = null;
  detail.dialog.replaceChildren();
  sliders.length = Math.min(sliders.length, 1);
  if (location.hash.startsWith("#sample-")) history.pushState(null, "", "#gallery");
  link?.focus({ preventScroll: true });
  link?.closest(".card").scrollIntoView({ block: "nearest" });
});

const KEYS = {
  "?": () => (help.open ? help.close() : help.showModal()),
  "/": () => {
    if (!detail.dialog.open) document.querySelector('input[type="search"]').focus();
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
  const { target, key } = event;
  if (target.matches('input[type="search"]')) {
    if (key === "Escape") {
      target.value = "";
      target.dispatchEvent(new Event("input"));
      target.blur();
    }
    return;
  }
  const own = key.startsWith("Arrow") && target.closest("input, select, .scroll");
  const inGallery = detail.dialog.open || cards.contains(target) || target === document.body;
  if (own || !(key in KEYS) || (help.open && key !== "?")) return;
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

// Before the first paint, so that no page flashes in the other theme. Pages load it as a plain script.
"use strict";
(() => {
  try {
    const theme = localStorage.getItem("eyelid-theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // No storage: the system's theme it is.
  }
})();

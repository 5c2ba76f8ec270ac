// Language and theme, before anything is painted. Kept for the next page where storage allows it.
"use strict";
(() => {
  const root = document.documentElement;
  const stored = (key) => {
    try { return localStorage.getItem(`loracle-${key}`); } catch { return null; }
  };
  const store = (key, value) => {
    // A page opened from a file or in a sandbox may have no storage; the choice then ends with it.
    try { localStorage.setItem(`loracle-${key}`, value); } catch { return; }
  };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let theme = stored("theme") ?? "auto";
  let language = stored("language") ?? (navigator.language.startsWith("zh") ? "zh" : "en");

  const show = () => {
    root.dataset.theme = theme === "auto" ? (dark.matches ? "dark" : "light") : theme;
    root.dataset.language = language;
    root.lang = language === "zh" ? "zh-Hans" : "en";
    for (const button of document.querySelectorAll("[data-set-theme]")) {
      button.setAttribute("aria-pressed", String(button.dataset.setTheme === theme));
    }
    for (const button of document.querySelectorAll("[data-set-language]")) {
      button.setAttribute("aria-pressed", String(button.dataset.setLanguage === language));
    }
    for (const field of document.querySelectorAll("[data-placeholder-en]")) {
      field.placeholder = language === "zh" ? field.dataset.placeholderZh : field.dataset.placeholderEn;
    }
  };
  show();
  dark.addEventListener("change", show);
  // Paper cannot be unfolded.
  addEventListener("beforeprint", () => {
    for (const folded of document.querySelectorAll(".decision details, #settings details")) folded.open = true;
  });
  document.addEventListener("DOMContentLoaded", () => {
    show();
    document.addEventListener("click", (event) => {
      const button = event.target.closest("[data-set-theme], [data-set-language]");
      if (!button) return;
      theme = button.dataset.setTheme ?? theme;
      language = button.dataset.setLanguage ?? language;
      store("theme", theme);
      store("language", language);
      show();
    });
  });
})();

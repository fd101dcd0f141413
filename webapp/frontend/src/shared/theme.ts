/** Light or dark, for every page; `early_theme.ts` applies the choice before a page is drawn. */

export function isDark(): boolean {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Calls `changed` whenever the page turns light or dark. */
export function onThemeChange(changed: () => void): void {
  new MutationObserver(changed).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
}

/** `theme`: light, dark or system. False when the browser's storage refused. */
export function chooseTheme(theme: string): boolean {
  if (theme === "system") {
    delete document.documentElement.dataset.theme;
    localStorage.removeItem("chatserver.theme");
    return true;
  }
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("chatserver.theme", theme);
    return true;
  } catch {
    return false;
  }
}

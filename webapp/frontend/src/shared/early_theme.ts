/** Loaded before the page is drawn, so that a chosen theme does not flash. `theme.ts` keeps the choice. */

const theme = localStorage.getItem("chatserver.theme");
if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;

/** A button that opens a list of actions: a popover of the browser, which closes by Escape and by a click elsewhere. */

import { h, icon } from "../shared/dom";

export interface Action {
  label: string;
  symbol: string;
  testid: string;
  run(): void;
}

let count = 0;

/** The button and its list, to be placed side by side. `actions` is asked each time that the list opens. */
export function menu(label: string, testid: string, actions: () => Action[]): [HTMLButtonElement, HTMLElement] {
  const id = `menu-${++count}`;
  const list = h("div", { id, class: "menu", popover: "auto", role: "group", "aria-label": label });
  const button = h(
    "button",
    {
      type: "button",
      class: "tool",
      title: label,
      "aria-label": label,
      "aria-expanded": "false",
      popovertarget: id,
      "data-testid": testid,
    },
    icon("more"),
  );
  list.addEventListener("beforetoggle", (event) => {
    const opens = (event as ToggleEvent).newState === "open";
    button.setAttribute("aria-expanded", String(opens));
    if (opens) list.replaceChildren(...actions().map((action) => item(action, list)));
  });
  list.addEventListener("toggle", (event) => {
    if ((event as ToggleEvent).newState !== "open") return;
    place(list, button);
    list.querySelector("button")?.focus();
  });
  list.addEventListener("keydown", (event) => moveFocus(list, event));
  return [button, list];
}

function item({ label, symbol, testid, run }: Action, list: HTMLElement): HTMLButtonElement {
  const onclick = () => {
    list.hidePopover();
    run();
  };
  return h("button", { type: "button", "data-testid": testid, onclick }, icon(symbol), label);
}

/** Under its button, or above where there is no room. */
function place(list: HTMLElement, button: HTMLElement): void {
  const { left, bottom, top } = button.getBoundingClientRect();
  const { offsetWidth, offsetHeight } = list;
  list.style.left = `${Math.max(8, Math.min(left, innerWidth - offsetWidth - 8))}px`;
  list.style.top = `${bottom + offsetHeight + 8 > innerHeight ? Math.max(8, top - offsetHeight) : bottom}px`;
}

function moveFocus(list: HTMLElement, event: KeyboardEvent): void {
  const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
  if (step === 0) return;
  event.preventDefault();
  const buttons = [...list.querySelectorAll("button")];
  const at = buttons.indexOf(document.activeElement as HTMLButtonElement);
  buttons.at((at + step) % buttons.length)?.focus();
}

/** Small helpers to make elements without HTML strings. */

type Child = Node | string | null | undefined | false;

/** `h("button", { class: "x", onclick: f }, "text")`: functions become properties, the rest attributes. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string | boolean | ((event: never) => void)> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") Object.assign(element, { [name]: value });
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child): child is Node | string => Boolean(child)));
  return element;
}

/** An icon of the sprite in index.html. Decorative: its button carries the label. */
export function icon(name: string): SVGSVGElement {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const element = document.getElementById(id);
  if (!element) throw new Error(`index.html has no element #${id}`);
  return element as T;
}

/** Sets only on change, so that a screen reader hears a text once. */
export function setText(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** True when it worked. Without a secure context there is no clipboard API, only the old command. */
export async function copyText(text: string): Promise<boolean> {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      /* refused: the old way may still work */
    }
  }
  const focused = document.activeElement;
  const area = h("textarea", { class: "visually-hidden", readonly: true, "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  if (focused instanceof HTMLElement) focused.focus();
  return copied;
}

/** A copy button says for a moment that it worked. */
export function copyButton(label: string, textOf: () => string): HTMLButtonElement {
  const word = h("span", {}, "Copy");
  const button = h(
    "button",
    { type: "button", class: "quiet", "data-testid": "copy", "aria-label": label, title: label },
    icon("copy"),
    word,
  );
  button.onclick = async () => {
    const copied = await copyText(textOf());
    button.replaceChildren(icon(copied ? "check" : "alert"), word);
    word.textContent = copied ? "Copied" : "Copying failed";
    button.removeAttribute("aria-label"); // a button's name holds the words that it shows
    setTimeout(() => {
      button.replaceChildren(icon("copy"), word);
      word.textContent = "Copy";
      button.setAttribute("aria-label", label);
    }, 1_500);
  };
  return button;
}

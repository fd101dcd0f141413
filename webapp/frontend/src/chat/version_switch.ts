/** ‹ 2/3 › under a message that has several versions. */

import { h, icon } from "../shared/dom";
import type { Versions } from "./tree";

/** Empty for a message with one version. */
export function versionSwitch({ index, ids }: Versions, show: (id: string) => void): HTMLElement[] {
  if (ids.length < 2) return [];
  const arrow = (name: string, label: string, id: string | undefined) =>
    h(
      "button",
      {
        type: "button",
        class: "quiet arrow",
        title: label,
        "aria-label": label,
        "data-testid": `version-${name}`,
        disabled: id === undefined,
        onclick: () => id && show(id),
      },
      icon(name),
    );
  return [
    h(
      "span",
      { class: "versions", role: "group", "aria-label": "Versions" },
      arrow("before", "Version before", ids[index - 1]),
      h("span", { "data-testid": "version" }, `${index + 1}/${ids.length}`),
      arrow("after", "Version after", ids[index + 1]),
    ),
  ];
}

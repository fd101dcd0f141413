/** Which of the two forms of `/jobs` is shown: it stands in the address, `#fine-tune` or `#fine-tune=<a cleaning>`. */

import { byId } from "../shared/dom";

export interface Place {
  form: "clean" | "train";
  data: string;
}

export function placeOf(hash: string): Place {
  const match = /^#fine-tune(?:=(.+))?$/.exec(hash);
  return match ? { form: "train", data: decodeURIComponent(match[1] ?? "") } : { form: "clean", data: "" };
}

/** Shows the form of the address, now and whenever that changes. */
export function followAddress(shown: (place: Place) => void): void {
  const show = () => {
    const place = placeOf(location.hash);
    byId("job-form").hidden = place.form !== "clean";
    byId("train-form").hidden = place.form !== "train";
    for (const [id, form] of [
      ["tab-clean", "clean"],
      ["tab-train", "train"],
    ] as const) {
      if (place.form === form) byId(id).setAttribute("aria-current", "page");
      else byId(id).removeAttribute("aria-current");
    }
    shown(place);
  };
  window.addEventListener("hashchange", show);
  show();
}

/** The chips of attached texts, in the composer, in an editor and in a message, and the dialog that shows one. */

import { byId, h, icon, setText } from "../shared/dom";
import { type Attachment, sizeOf } from "./attachments";

export interface AttachmentActions {
  remove(attachment: Attachment): void;
  /** Makes it part of what is typed. */
  insert?(attachment: Attachment): void;
}

/** One chip for each. `actions`: of those that are not sent yet. */
export function attachmentItems(attachments: Attachment[], actions?: AttachmentActions): HTMLLIElement[] {
  return attachments.map((attachment) => item(attachment, actions));
}

function item(attachment: Attachment, actions: AttachmentActions | undefined): HTMLLIElement {
  const view = h(
    "button",
    {
      type: "button",
      class: "view",
      title: `Show ${attachment.name}`,
      "data-testid": "attachment-view",
      onclick: () => show(attachment, actions),
    },
    icon("file"),
    h("span", { class: "title" }, attachment.name),
    h("span", { class: "meta" }, sizeOf(attachment)),
  );
  const remove =
    actions &&
    h(
      "button",
      {
        type: "button",
        class: "tool",
        title: `Remove ${attachment.name}`,
        "aria-label": `Remove ${attachment.name}`,
        "data-testid": "attachment-remove",
        onclick: () => actions.remove(attachment),
      },
      icon("close"),
    );
  return h("li", { class: "attachment", "data-testid": "attachment" }, view, remove);
}

function show(attachment: Attachment, actions: AttachmentActions | undefined): void {
  const dialog = byId<HTMLDialogElement>("attachment");
  const insert = byId<HTMLButtonElement>("attachment-insert");
  setText(byId("attachment-title"), attachment.name);
  setText(byId("attachment-size"), sizeOf(attachment));
  setText(byId("attachment-text"), attachment.text);
  insert.hidden = !actions?.insert;
  insert.onclick = () => actions?.insert?.(attachment);
  dialog.showModal();
}

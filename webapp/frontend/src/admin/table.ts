/** A table whose rows stay the same elements while their numbers change, so that focus and a click survive an update. */

import { h, setText } from "../shared/dom";
import type { Action, Actions } from "./actions";

export interface Column<Row> {
  label: string;
  kind?: "name" | "number" | "wide" | "id";
  text: (row: Row) => string;
  /** Under the text, in small letters. */
  more?: (row: Row) => string;
}

export interface Shape<Row> {
  columns: Column<Row>[];
  keyOf: (row: Row) => string;
  actions?: Action<Row>[];
  isOff?: (row: Row) => boolean;
  empty: string;
}

interface Drawn<Row> {
  element: HTMLTableRowElement;
  cells: HTMLTableCellElement[];
  buttons: HTMLButtonElement[];
  row: Row;
}

export class Table<Row> {
  private body = h("tbody", { role: "rowgroup" });
  private table: HTMLTableElement;
  private nothing: HTMLElement;
  private drawn = new Map<string, Drawn<Row>>();

  /** `runner` runs the actions of the rows. */
  constructor(
    place: HTMLElement,
    label: string,
    private shape: Shape<Row>,
    private runner: Actions,
  ) {
    const heads = shape.columns.map(({ label, kind }) => head(label, kind ?? ""));
    if (shape.actions) heads.push(head(h("span", { class: "visually-hidden" }, "What can be done"), ""));
    const top = h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...heads));
    this.table = h("table", { role: "table", "aria-label": label, hidden: true }, top, this.body);
    this.nothing = h("p", { class: "empty", hidden: true }, shape.empty);
    place.replaceChildren(this.table, this.nothing);
  }

  show(rows: Row[]): void {
    this.table.hidden = !rows.length;
    this.nothing.hidden = rows.length > 0;
    this.forgetAllBut(new Set(rows.map(this.shape.keyOf)));
    rows.forEach((row, place) => {
      const { element } = this.shown(row);
      if (this.body.children[place] !== element) this.body.insertBefore(element, this.body.children[place] ?? null);
    });
  }

  private forgetAllBut(keys: Set<string>): void {
    for (const [key, { element }] of this.drawn) {
      if (keys.has(key)) continue;
      element.remove();
      this.drawn.delete(key);
    }
  }

  private shown(row: Row): Drawn<Row> {
    const key = this.shape.keyOf(row);
    const drawn = this.drawn.get(key) ?? this.made(key, row);
    drawn.row = row;
    drawn.element.classList.toggle("off", this.shape.isOff?.(row) ?? false);
    this.shape.columns.forEach((column, place) => {
      fill(drawn.cells[place] as HTMLTableCellElement, column, row);
    });
    this.shape.actions?.forEach((action, place) => {
      name(drawn.buttons[place] as HTMLButtonElement, action, row);
    });
    return drawn;
  }

  private made(key: string, row: Row): Drawn<Row> {
    const cells = this.shape.columns.map(cellOf);
    const buttons = (this.shape.actions ?? []).map((action) =>
      h("button", {
        type: "button",
        class: "button small",
        onclick: ({ currentTarget }: MouseEvent) =>
          void this.runner.press(currentTarget as HTMLButtonElement, action, drawn.row),
      }),
    );
    const element = h("tr", { role: "row", "data-key": key }, ...cells);
    if (buttons.length) element.append(h("td", { role: "cell", class: "actions" }, ...buttons));
    const drawn = { element, cells, buttons, row };
    this.drawn.set(key, drawn);
    return drawn;
  }
}

function head(label: string | HTMLElement, kind: string): HTMLElement {
  return h("th", { scope: "col", role: "columnheader", class: kind }, label);
}

function cellOf<Row>({ label, kind, more }: Column<Row>): HTMLTableCellElement {
  const text = h("span", { class: kind === "id" ? "id" : "" });
  return h(
    "td",
    { role: "cell", "data-label": label, class: kind ?? "" },
    text,
    more && h("p", { class: "quiet-text" }),
  );
}

function fill<Row>(cell: HTMLTableCellElement, column: Column<Row>, row: Row): void {
  const [text, more] = [column.text(row), column.more?.(row) ?? ""];
  cell.classList.toggle("empty-cell", !text && !more);
  setText(cell.firstElementChild as HTMLElement, text);
  if (column.more) setText(cell.lastElementChild as HTMLElement, more);
}

/** The button shows the verb; a screen reader says also of what. */
function name<Row>(button: HTMLButtonElement, action: Action<Row>, row: Row): void {
  button.hidden = !(action.applies?.(row) ?? true);
  setText(button, action.verb(row));
  button.setAttribute("aria-label", `${action.verb(row)} ${action.object(row)}`);
}

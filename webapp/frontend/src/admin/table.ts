/** A table whose rows stay the same elements while their numbers change, so that focus and a click survive an update. */

import { h, setText } from "../shared/dom";

export interface Column<Row> {
  label: string;
  kind?: "name" | "number" | "wide" | "id";
  text: (row: Row) => string;
  /** Under the text, in small letters. */
  more?: (row: Row) => string;
}

interface Drawn<Row> {
  element: HTMLTableRowElement;
  cells: HTMLTableCellElement[];
  row: Row;
}

export interface Shape<Row> {
  columns: Column<Row>[];
  keyOf: (row: Row) => string;
  /** The buttons of a row, made once; `current` gives the row as it is when somebody clicks. */
  actions?: (current: () => Row) => HTMLElement[];
  isOff?: (row: Row) => boolean;
  empty: string;
}

export class Table<Row> {
  private body = h("tbody", { role: "rowgroup" });
  private table: HTMLTableElement;
  private nothing: HTMLElement;
  private drawn = new Map<string, Drawn<Row>>();

  constructor(
    place: HTMLElement,
    label: string,
    private shape: Shape<Row>,
  ) {
    const heads = shape.columns.map((column) =>
      h("th", { scope: "col", role: "columnheader", class: column.kind ?? "" }, column.label),
    );
    if (shape.actions)
      heads.push(
        h("th", { scope: "col", role: "columnheader" }, h("span", { class: "visually-hidden" }, "What can be done")),
      );
    const head = h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...heads));
    this.table = h("table", { role: "table", "aria-label": label, hidden: true }, head, this.body);
    this.nothing = h("p", { class: "empty", hidden: true }, shape.empty);
    place.replaceChildren(this.table, this.nothing);
  }

  show(rows: Row[]): void {
    this.table.hidden = !rows.length;
    this.nothing.hidden = rows.length > 0;
    const keys = new Set(rows.map(this.shape.keyOf));
    for (const [key, { element }] of this.drawn)
      if (!keys.has(key)) {
        element.remove();
        this.drawn.delete(key);
      }
    rows.forEach((row, place) => {
      const { element } = this.row(row);
      if (this.body.children[place] !== element) this.body.insertBefore(element, this.body.children[place] ?? null);
    });
  }

  private row(row: Row): Drawn<Row> {
    const key = this.shape.keyOf(row);
    const drawn = this.drawn.get(key) ?? this.made(key, row);
    drawn.row = row;
    drawn.element.classList.toggle("off", this.shape.isOff?.(row) ?? false);
    this.shape.columns.forEach((column, place) => {
      fill(drawn.cells[place] as HTMLTableCellElement, column, row);
    });
    return drawn;
  }

  private made(key: string, row: Row): Drawn<Row> {
    const cells = this.shape.columns.map(({ label, kind, more }) =>
      h(
        "td",
        { role: "cell", "data-label": label, class: kind ?? "" },
        h("span", { class: kind === "id" ? "id" : "" }),
        more && h("p", { class: "quiet-text" }),
      ),
    );
    const element = h("tr", { role: "row", "data-key": key }, ...cells);
    const drawn = { element, cells, row };
    const actions = this.shape.actions?.(() => drawn.row);
    if (actions) element.append(h("td", { role: "cell", class: "actions" }, ...actions));
    this.drawn.set(key, drawn);
    return drawn;
  }
}

function fill<Row>(cell: HTMLTableCellElement, column: Column<Row>, row: Row): void {
  const [text, more] = [column.text(row), column.more?.(row) ?? ""];
  cell.classList.toggle("empty-cell", !text && !more);
  setText(cell.firstElementChild as HTMLElement, text);
  if (cell.lastElementChild !== cell.firstElementChild) setText(cell.lastElementChild as HTMLElement, more);
}

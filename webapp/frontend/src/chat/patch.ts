/**
 * Makes a part of the page look like a newly built one and keeps every element that is right already: a growing answer
 * is not laid out anew with each word, and what the reader has selected stays selected.
 */

/** Gives `old` the children of `fresh`. `isDone`: `old` shows what `fresh` only stands for. */
export function patchChildren(old: Node, fresh: Node, isDone: (old: Element, fresh: Element) => boolean): void {
  const before = [...old.childNodes];
  const wanted = [...fresh.childNodes];
  wanted.forEach((node, i) => {
    const known = before[i];
    if (!known) old.appendChild(node);
    else if (!becomes(known, node, isDone)) old.replaceChild(node, known);
  });
  for (const node of before.slice(wanted.length)) old.removeChild(node);
}

/** False if only a new node will do. */
function becomes(old: Node, fresh: Node, isDone: (old: Element, fresh: Element) => boolean): boolean {
  if (old instanceof Text && fresh instanceof Text) {
    if (fresh.data.startsWith(old.data)) old.appendData(fresh.data.slice(old.length));
    else old.data = fresh.data;
    return true;
  }
  if (!(old instanceof Element && fresh instanceof Element)) return false;
  if (isDone(old, fresh)) return true;
  if (!isAlike(old, fresh)) return false;
  patchChildren(old, fresh, isDone);
  return true;
}

function isAlike(a: Element, b: Element): boolean {
  if (a.tagName !== b.tagName || a.attributes.length !== b.attributes.length) return false;
  return [...a.attributes].every(({ name, value }) => b.getAttribute(name) === value);
}

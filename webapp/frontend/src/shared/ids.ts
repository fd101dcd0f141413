/** Random ids. `crypto.randomUUID` is missing on plain http outside localhost, where many of us run. */

export function newId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** One id per tab; it survives a reload. */
export function tabId(): string {
  const known = sessionStorage.getItem("chatserver.tab");
  if (known) return known;
  const id = newId();
  sessionStorage.setItem("chatserver.tab", id);
  return id;
}

/** The words of an error, as the server's `{code, message, remedy}` gives them. */

/** What people read of an error. */
export function describeError({ message, remedy }: { message: string; remedy?: string }): string {
  return remedy ? `${message}. Remedy: ${remedy}` : message;
}

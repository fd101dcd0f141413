/** An error as the server tells it, on a socket and over HTTP (docs/protocol.md). */

export interface ServerError {
  code: string;
  message: string;
  /** What to do, where the message does not say it. */
  remedy?: string;
  retry_after_s?: number;
}

/** What people read of it. */
export function describeError({ message, remedy }: Pick<ServerError, "message" | "remedy">): string {
  return remedy ? `${message}. Remedy: ${remedy}` : message;
}

/**
 * Questions that wait until the running answer of their conversation has ended: in this browser's storage, in the order
 * in which they were asked. Their ids are made when they are asked, so two tabs that send one send the same.
 */

export interface NextQuestion {
  questionId: string;
  answerId: string;
  content: string;
}

const PREFIX = "chatserver.next.";

export class NextQuestions {
  constructor(private storage: Pick<Storage, "getItem" | "setItem" | "removeItem">) {}

  list(conversationId: string): NextQuestion[] {
    return JSON.parse(this.storage.getItem(PREFIX + conversationId) ?? "[]") as NextQuestion[];
  }

  /** False when the storage refused. */
  add(conversationId: string, question: NextQuestion): boolean {
    try {
      this.keep(conversationId, [...this.list(conversationId), question]);
      return true;
    } catch {
      return false;
    }
  }

  remove(conversationId: string, { questionId }: Pick<NextQuestion, "questionId">): void {
    this.keep(
      conversationId,
      this.list(conversationId).filter((question) => question.questionId !== questionId),
    );
  }

  private keep(conversationId: string, questions: NextQuestion[]): void {
    if (questions.length > 0) this.storage.setItem(PREFIX + conversationId, JSON.stringify(questions));
    else this.storage.removeItem(PREFIX + conversationId);
  }
}

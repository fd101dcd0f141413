/** What is attached to a question comes out of the message as it went in. */

import assert from "node:assert/strict";
import test from "node:test";
import { freshName, NotText, readText, splitAttachments, withAttachments } from "../../src/chat/attachments";

const file = (name: string, ...parts: BlobPart[]) => new File(parts, name);

test("a message with attached texts names each one, and is split again into what it was made of", () => {
  const attachments = [
    { name: "notes.txt", text: "one\ntwo\n" },
    { name: "code.md", text: '```python\nprint()\n```\n\nAttached text "x":\n````\ny\n````' },
    { name: "odd.txt", text: "\n\n" },
  ];
  for (const typed of ["What is in it?", "", 'Attached text "no":\nreally']) {
    const message = withAttachments(typed, attachments);
    assert.deepEqual(splitAttachments(message), { typed, attachments });
  }
  assert.equal(withAttachments("Look", [{ name: "a.txt", text: "x" }]), 'Look\n\nAttached text "a.txt":\n```\nx\n```');
});

test("a message that only looks like one is all typed", () => {
  for (const typed of [
    "hello",
    'Attached text "a":\n```\nx',
    'Attached text "a":\n```\nx\n```\nand more',
    "```\nx\n```",
  ])
    assert.deepEqual(splitAttachments(typed), { typed, attachments: [] });
});

test("two files of one name have two names, and no name breaks the form", () => {
  const others = [{ name: "a.txt", text: "" }];
  assert.equal(freshName("a.txt", others), "a.txt (2)");
  assert.equal(freshName('a"b\n\u202ec.txt', others), "a b c.txt");
  assert.equal(freshName("  ", others), "text");
});

test("only texts are read, and no file that could not be sent", async () => {
  assert.equal(await readText(file("a.txt", "caf\u00e9\r\n\ufeff"), 100), "caf\u00e9\n\ufeff");
  await assert.rejects(readText(file("cat.png", new Uint8Array([0x89, 0x50, 0, 1])), 100), NotText);
  await assert.rejects(readText(file("zero.bin", "a\0b"), 100), /zero\.bin is not a text/);
  await assert.rejects(readText(file("big.txt", "x".repeat(1_234)), 1_000), /1,234 bytes.*1,000 at most/);
});

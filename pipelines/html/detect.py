"""Is an assistant turn an HTML export, or markdown that mentions tags? Asked by the step `html_to_markdown`.

The rule, on the text without surrounding white space:

1. It begins with a tag, comment or document type (at most a counter such as `2 / 2` may stand before it), and that first
   element is one that an export begins with: a block (`p`, `div`, `pre`, `ul`, `h1`, …), or an inline element of an answer.
2. Each begin of an element is a whole tag of HTML by its name, and elements are closed: there is at least one end tag of
   a block, or the whole text is one inline element.
3. There is no markdown beside the HTML. A fence (a line that begins with three backticks or tildes) outside `<pre>`, and a
   line outside any element that begins like a heading, an item or a quote, say that somebody wrote markdown that holds
   HTML, which is no export.
"""

/** JSON Lines, produced as fast as the client reads, several lines per write. */
export async function* lines(items: AsyncIterable<object>, chunkChars: number): AsyncGenerator<string> {
  let text = '';
  for await (const item of items) {
    text += `${JSON.stringify(item)}\n`;
    if (text.length < chunkChars) continue;
    yield text;
    text = '';
  }
  if (text !== '') yield text;
}

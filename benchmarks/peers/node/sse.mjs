// eventsource-parser over the bytes of a file: node sse.mjs FILE PIECE_BYTES REPEATS EVENTS. Prints seconds of the fastest pass.
// PIECE_BYTES 0: a piece is an event, cut at the blank lines. CPU time or wall clock, whichever is less: a collector in
// another thread is not held against it.
import { readFileSync } from "node:fs";
import { createParser } from "eventsource-parser";

const [file, pieceBytes, repeats, events] = [process.argv[2], ...process.argv.slice(3).map(Number)];
const whole = readFileSync(file);
const pieces = [];
for (let at = 0; at < whole.length; ) {
  const end = pieceBytes || whole.indexOf("\n\n", at) + 2 - at;
  pieces.push(whole.subarray(at, at + end));
  at += end;
}
let best = Infinity;
for (let pass = 0; pass < repeats; pass++) {
  const seen = [];
  const parser = createParser({ onEvent: (event) => seen.push(event) });
  const decoder = new TextDecoder();
  const cpu = process.cpuUsage();
  const start = process.hrtime.bigint();
  for (const piece of pieces) parser.feed(decoder.decode(piece, { stream: true }));
  const wall = Number(process.hrtime.bigint() - start) / 1e9;
  const used = process.cpuUsage(cpu);
  best = Math.min(best, wall, (used.user + used.system) / 1e6);
  if (seen.length !== events) throw new Error(`${seen.length} events of ${events}`);
}
console.log(JSON.stringify({ seconds: best }));

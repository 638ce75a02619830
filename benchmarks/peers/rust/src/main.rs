//! eventsource-stream over the bytes of a file: sse-peer FILE PIECE_BYTES REPEATS EVENTS. Prints seconds of the fastest pass.
//! PIECE_BYTES 0: a piece is an event, cut at the blank lines.

use bytes::Bytes;
use eventsource_stream::Eventsource;
use futures::executor::block_on;
use futures::stream::{self, StreamExt};
use std::convert::Infallible;
use std::time::Instant;

fn cut(whole: &Bytes, piece_bytes: usize) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < whole.len() {
        let length = match piece_bytes {
            0 => whole[at..].windows(2).position(|pair| pair == b"\n\n").expect("a blank line") + 2,
            size => size.min(whole.len() - at),
        };
        pieces.push(whole.slice(at..at + length));
        at += length;
    }
    pieces
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |index: usize| arguments[index].parse::<usize>().expect("a number");
    let whole = Bytes::from(std::fs::read(&arguments[1]).expect("a file"));
    let pieces = cut(&whole, number(2));
    let mut best = f64::INFINITY;
    for _ in 0..number(3) {
        let given = pieces.clone(); // cheap: they share the bytes
        let start = Instant::now();
        let seen = block_on(async {
            let source = stream::iter(given.into_iter().map(Ok::<Bytes, Infallible>)).eventsource();
            source.map(|event| event.expect("an event")).collect::<Vec<_>>().await
        });
        best = best.min(start.elapsed().as_secs_f64());
        assert_eq!(seen.len(), number(4));
    }
    println!("{{\"seconds\": {best}}}");
}

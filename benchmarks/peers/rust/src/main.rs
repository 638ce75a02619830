//! eventsource-stream over the bytes of a file: sse-peer FILE PIECE_BYTES REPEATS EVENTS. Prints seconds of the fastest pass.
//! PIECE_BYTES 0: a piece is an event, cut at the blank lines. The pieces are always ready, so there is no executor to pay for.

use bytes::Bytes;
use eventsource_stream::Eventsource;
use futures_core::Stream;
use std::convert::Infallible;
use std::pin::{pin, Pin};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

struct Ready(std::vec::IntoIter<Bytes>);

impl Stream for Ready {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.next().map(Ok))
    }
}

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

fn decode(pieces: Vec<Bytes>) -> usize {
    let mut events = pin!(Ready(pieces.into_iter()).eventsource());
    let mut context = Context::from_waker(Waker::noop());
    let mut seen = Vec::new();
    while let Poll::Ready(Some(event)) = events.as_mut().poll_next(&mut context) {
        seen.push(event.expect("an event"));
    }
    seen.len()
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
        let seen = decode(given);
        best = best.min(start.elapsed().as_secs_f64());
        assert_eq!(seen, number(4));
    }
    println!("{{\"seconds\": {best}}}");
}

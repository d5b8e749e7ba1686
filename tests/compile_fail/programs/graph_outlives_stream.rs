//! A graph cannot outlive the stream that it was captured from.

use pagedptx::driver::Graphs;
use pagedptx::{Device, Graph};

fn escape<'s, D: Graphs>(device: &Device<D>) -> Graph<'s, D> {
    let stream = device.stream().unwrap();
    stream.capture(|| Ok(())).unwrap()
}

fn main() {}

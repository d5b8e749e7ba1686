//! A graph is replayed by one at a time: the driver's graphs are not made for two.

use pagedptx::Graph;
use pagedptx::driver::Graphs;

fn replay<D: Graphs>(graph: &Graph<'_, D>) {
    let _ = graph.replay();
}

fn main() {}

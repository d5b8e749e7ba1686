//! A pool's buffers cannot be replaced by shorter ones (P1).

use pagedptx::{Buffer, Driver, KvPool};

fn replace<'s, D: Driver>(pool: &mut KvPool<'s, D, f32>, short: Buffer<'s, D, f32>) {
    *pool.k() = short;
}

fn main() {}

//! A stream cannot be dropped while a pool is bound to it.

use pagedptx::{Driver, KvPool, PoolShape, Stream};

fn under<D: Driver>(stream: Stream<D>, shape: PoolShape) {
    let pool = KvPool::<_, f32>::new(&stream, shape).unwrap();
    drop(stream);
    drop(pool);
}

fn main() {}

//! A buffer that was dropped cannot be given to a call.

use pagedptx::{Buffer, DecodeArgs, Driver};

fn late<'s, D: Driver>(q: Buffer<'s, D, f32>, out: &mut Buffer<'s, D, f32>) {
    drop(q);
    let _args = DecodeArgs { q: &q, out, lse: None, sm_scale: 1.0 };
}

fn main() {}

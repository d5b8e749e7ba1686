//! The output of a call cannot be its input.

use pagedptx::{Buffer, DecodeArgs, Driver};

fn alias<'s, D: Driver>(buffer: &mut Buffer<'s, D, f32>) {
    let _args = DecodeArgs { q: &*buffer, out: buffer, lse: None, sm_scale: 1.0 };
}

fn main() {}

//! A buffer cannot outlive its stream (S1), nor therefore its device.

use pagedptx::{Buffer, Device, Driver};

fn escape<'s, D: Driver>(device: &Device<D>) -> Buffer<'s, D, f32> {
    let stream = device.stream().unwrap();
    Buffer::uninit(&stream, 1).unwrap()
}

fn main() {}
